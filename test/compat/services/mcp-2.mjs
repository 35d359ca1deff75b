// The second generation of MCP's SDK, imported.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node'
import { McpServer } from '@modelcontextprotocol/server'
import { run } from './mcp-run.cjs'

await run({
  Client,
  ClientTransport: StreamableHTTPClientTransport,
  McpServer,
  ServerTransport: NodeStreamableHTTPServerTransport,
})
