// A guest of a PeerNet network whose spec.guests.enabled is true: it holds no secret, and asks.
//
//   node guest.mjs NAMESPACE/NAME ADDRESS [COMMAND]...
//
// ADDRESS is an agent's: /ip4/POD-IP/tcp/4001, or /ip4/POD-IP/tcp/4002/ws over WebSocket (with
// node's --experimental-websocket before Node 22). Commands, in any number and order:
//
//   ping              three round trips, in milliseconds
//   find PEER-ID      where a peer is, by the DHT
//   get KEY           reads a record from the DHT: js-libp2p's keys have the form /app/NAME
//   put KEY VALUE     tries to store one: guests are refused
//   ended             waits until the agent ends the connection: it receives no guests
//
// Prints a line of JSON about the agent, and one for each command.
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { host, identified } from './host.mjs'

const DEADLINE = 10_000
const [network, address, ...words] = process.argv.slice(2)
const tell = (line) => console.log(JSON.stringify(line))
const octets = (text) => new TextEncoder().encode(text)
const text = (octets) => new TextDecoder().decode(octets)

const node = await host({ network })
const { dht, ping } = node.services
const connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(DEADLINE) })
const agent = connection.remotePeer
const { agentVersion, protocolVersion, protocols, listenAddrs, observedAddr } = await identified(node, agent)
tell({
  peer: agent.toString(),
  agentVersion,
  protocolVersion,
  protocols,
  listenAddrs: listenAddrs.map(String),
  observedAddr: String(observedAddr)
})

// What a query of the DHT ends with, of the events that it goes through.
async function last (query, name, isIt = () => true) {
  let found
  for await (const event of query) {
    if (event.name === 'QUERY_ERROR') console.error(event.error.message)
    if (event.name === name && isIt(event)) found = event
  }
  if (found == null) throw new Error(`the query ended without ${name}`)
  return found
}

const commands = {
  async ping () {
    const millis = []
    for (let n = 0; n < 3; n++) {
      millis.push(await ping.ping(agent, { signal: AbortSignal.timeout(DEADLINE) }))
    }
    return { millis }
  },
  async find (peer) {
    const { peer: { id, multiaddrs } } = await last(dht.findPeer(peerIdFromString(peer), { signal: AbortSignal.timeout(DEADLINE) }), 'FINAL_PEER')
    return { found: id.toString(), addresses: multiaddrs.map(String) }
  },
  async put (key, value) {
    const isAnswer = ({ messageName }) => messageName === 'PUT_VALUE'
    const query = dht.put(octets(key), octets(value), { signal: AbortSignal.timeout(DEADLINE) })
    const { from } = await last(query, 'PEER_RESPONSE', isAnswer)
    return { stored: key, by: from.toString() }
  },
  async get (key) {
    const { value } = await last(dht.get(octets(key), { signal: AbortSignal.timeout(DEADLINE) }), 'VALUE')
    return { key, value: text(value) }
  },
  async ended () {
    const deadline = Date.now() + DEADLINE
    while (connection.status === 'open') {
      if (Date.now() > deadline) throw new Error('the agent has not ended the connection')
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    return { ended: true }
  }
}

while (words.length > 0) {
  const command = commands[words.shift()]
  tell(await command(...words.splice(0, command.length)))
}
await node.stop()
