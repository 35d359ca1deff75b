import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { run } from './mcp-run.cjs'

await run({
  Client,
  ClientTransport: StreamableHTTPClientTransport,
  McpServer,
  ServerTransport: StreamableHTTPServerTransport,
})
