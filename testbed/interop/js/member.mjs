// A member of a PeerNet network, in another language: who holds the network's secret is one, whatever it is made of.
// Agents find it by its dialing one of them, measure it, and are measured by nobody here: it only answers.
//
//   node member.mjs SECRET-FILE NAME NAMESPACE/NAME ADDRESS
//
// SECRET-FILE holds the 32 bytes of `network-secret` in the Secret NAME-identity. NAME must be no pod's. Runs until its
// standard input ends.
import { hkdfSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { multiaddr } from '@multiformats/multiaddr'
import { host } from './host.mjs'

const [secretFile, name, network, address] = process.argv.slice(2)

// The key of the member called so: Ed25519, its seed by HKDF-SHA256.
const seed = hkdfSync('sha256', readFileSync(secretFile), Buffer.alloc(0), `identity/${name}`, 32)
const privateKey = await generateKeyPairFromSeed('Ed25519', new Uint8Array(seed))
// Its name, and which start of it this is: what agents look for in identify's agent version.
const userAgent = `peernet/0.1.0 (${name}; ${randomBytes(8).toString('hex')})`

const listen = ['/ip4/127.0.0.1/tcp/0']
const node = await host({ network, listen, privateKey, userAgent, server: true })
await node.dial(multiaddr(address), { signal: AbortSignal.timeout(10_000) })
console.log(JSON.stringify({ member: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) }))
for await (const _ of process.stdin);
await node.stop()
