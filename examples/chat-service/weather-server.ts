// An MCP server over stdio with one tool: the forecast. Run by the chat service as a process of its own.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js'
import { z } from 'zod'

const server = new McpServer({ name: 'weather', version: '1.0.0' })
server.registerTool('forecast', { inputSchema: { city: z.string() } }, ({ city }) => ({
  content: [{ type: 'text', text: `rain in ${city}` }],
}))
await server.connect(new StdioServerTransport())
