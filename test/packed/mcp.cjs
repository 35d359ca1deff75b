const { Client } = require('@modelcontextprotocol/sdk/client/index.js')
const { StreamableHTTPClientTransport } = require('@modelcontextprotocol/sdk/client/streamableHttp.js')
const { McpServer } = require('@modelcontextprotocol/sdk/server/mcp.js')
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js')
const { run } = require('./mcp-run.cjs')

run({
  Client,
  ClientTransport: StreamableHTTPClientTransport,
  McpServer,
  ServerTransport: StreamableHTTPServerTransport,
})
