// One conversation through the TypeScript SDK, told as JSON on stdout.
//
// node typescript.mjs PACKAGE MODE COMMAND [ARGUMENT...]
// PACKAGE is @modelcontextprotocol/client (version 2) or @modelcontextprotocol/sdk (version 1).
const [packageName, mode, command, ...args] = process.argv.slice(2);
const isFirst = packageName.endsWith('/sdk');
const { Client } = await import(isFirst ? `${packageName}/client/index.js` : packageName);
const { StdioClientTransport } = await import(
  isFirst ? `${packageName}/client/stdio.js` : `${packageName}/stdio`
);

const options = isFirst ? {} : { versionNegotiation: { mode } };
const client = new Client({ name: 'typescript', version: '1' }, options);
await client.connect(new StdioClientTransport({ command, args, env: process.env }));
const call = (name, given, more) => client.callTool({ name, arguments: given }, ...more ?? []);

const story = {};
story.tools = (await client.listTools()).tools.map((tool) => tool.name);
const content = 'The heron nests behind the mill.';
story.stored = (await call('archival_memory_insert', { content })).structuredContent;
story.found = (await call('archival_memory_search', { query: 'heron' })).structuredContent;
story.core = (await client.readResource({ uri: 'memory://core' })).contents[0].text;
const completed = await client.complete({
  ref: { type: 'ref/resource', uri: 'memory://core/{label}' },
  argument: { name: 'label', value: 'hu' },
});
story.completed = completed.completion.values;

let heard;
const updated = new Promise((resolve) => { heard = resolve; });
const method = 'notifications/resources/updated';
if (isFirst) {
  const { ResourceUpdatedNotificationSchema } = await import(`${packageName}/types.js`);
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, (news) => heard(news.params.uri));
} else {
  client.setNotificationHandler(method, (news) => heard(news.params.uri));
}
if (mode === 'auto') await client.listen({ resourceSubscriptions: ['memory://core'] });
else await client.subscribeResource({ uri: 'memory://core' });
await call('core_memory_append', { label: 'human', content: 'Likes herons.' });
story.updated = await updated;

const abort = new AbortController();
const cancelled = call('archival_memory_search', { query: 'mill' }, [
  ...(isFirst ? [undefined] : []),
  { signal: abort.signal },
]);
abort.abort();
story.cancelled = await cancelled.then(() => false, () => true);
story.after = (await call('core_memory_view', {})).structuredContent;

await client.close();
console.log(JSON.stringify(story));
