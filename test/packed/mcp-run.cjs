// A client and a server of MCP over streamable HTTP in one process, as their users write them: no word about telemetry.
const { once } = require('node:events')
const { createServer } = require('node:http')

exports.run = async ({ Client, ClientTransport, McpServer, ServerTransport }) => {
  let traceparent
  const web = createServer(async (request, response) => {
    traceparent = request.headers.traceparent
    const server = new McpServer({ name: 'files', version: '1.0.0' })
    const answer = () => ({ content: [{ type: 'text', text: '3' }] })
    // The first versions have no other.
    if (server.registerTool === undefined) server.tool('ask', answer)
    else server.registerTool('ask', {}, answer)
    const transport = new ServerTransport({ sessionIdGenerator: undefined })
    response.once('close', () => transport.close())
    await server.connect(transport)
    await transport.handleRequest(request, response)
  })
  web.listen(0, '127.0.0.1')
  await once(web, 'listening')
  const client = new Client({ name: 'test', version: '1.0.0' })
  await client.connect(new ClientTransport(new URL(`http://127.0.0.1:${web.address().port}/mcp`)))
  const { content } = await client.callTool({ name: 'ask' })
  const traceId = traceparent?.split('-')[1]
  await client.close()
  web.closeAllConnections()
  web.close()
  console.log(JSON.stringify({ text: content[0].text, traceId }))
}
