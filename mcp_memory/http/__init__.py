"""The memory over HTTP: streamable HTTP and SSE, for one user on this machine or for a team."""
