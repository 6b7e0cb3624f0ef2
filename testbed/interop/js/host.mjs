// A js-libp2p host that fits PeerNet's agents: TCP and WebSocket, Noise, Yamux; identify, ping, and the network's own Kademlia.
import './polyfill.mjs'
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

// Keys of records begin with this name space.
const nameSpace = 'app'

// network: `namespace/name`. listen: multiaddrs. privateKey, userAgent: js-libp2p's own if there is none.
// server: whether others may ask this host about the DHT.
export function host ({ network, listen = [], privateKey, userAgent, server = false }) {
  return createLibp2p({
    ...(privateKey && { privateKey }),
    ...(userAgent && { nodeInfo: { userAgent } }),
    addresses: { listen },
    transports: [tcp(), webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: {
      identify: identify(),
      // The DHT pings a peer before it takes it up, and never again if it may not: one stream would be ours alone.
      ping: ping({ maxOutboundStreams: 4 }),
      dht: kadDHT({
        protocol: `/peernet/${network}/kad/1.0.0`,
        clientMode: !server,
        // Pods have private addresses, which js-libp2p would leave out.
        peerInfoMapper: passthroughMapper,
        // js-libp2p takes keys of the form /NAME-SPACE/NAME only, and wants to be told how values are checked and chosen.
        validators: { [nameSpace]: async () => {} },
        selectors: { [nameSpace]: () => 0 }
      })
    }
  })
}

// What the other side of a connection says about itself.
export function identified (node, peer) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('it never said who it is')), 10_000)
    node.addEventListener('peer:identify', ({ detail }) => {
      if (!detail.peerId.equals(peer)) return
      clearTimeout(late)
      resolve(detail)
    })
  })
}
