"""Access tokens, as callers of the façade know them: create, list, revoke, check."""

from mcp_memory.tiers.access import PREFIX, AccessTokens, read_expiry, read_scope
from mcp_memory.values.access import Scope as AccessScope
from mcp_memory.values.access import Token as AccessToken

__all__ = ["PREFIX", "AccessScope", "AccessToken", "AccessTokens", "read_expiry", "read_scope"]
