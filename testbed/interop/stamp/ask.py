"""A STAMP session-sender (RFC 8762, RFC 8972, unauthenticated mode) made of scapy's packets.

Usage: ask.py HOST PORT [FORMAT [EXTENSIONS]]
FORMAT: ntp or ptp. EXTENSIONS: TLVs as TYPE:VALUE, the value in hexadecimal digits, separated by commas.

Sends a few requests, one after the other, and prints for each, as a line of JSON, what scapy reads in the answer to it.
Every number is as it stands in the packet. Ends with an error if an answer does not come, or if scapy, writing down again
what it has read, gets other octets.
"""

import json
import socket
import sys
import time

from scapy.contrib.stamp import (
    ErrorEstimate,
    STAMPSessionReflectorTestUnauthenticated as Reply,
    STAMPSessionSenderTestUnauthenticated as Request,
    STAMPTestTLV,
)

REQUESTS = 5
DEADLINE = 10  # seconds for one answer
SSID = 0x1234
UNRECOGNIZED = 0x80  # a sender sets this flag in every TLV (RFC 8972, section 4)
NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970


def now(ptp):
    """The wall clock in one of the two formats, as 64 bits."""
    seconds, nanos = divmod(time.time_ns(), 10**9)
    return seconds << 32 | nanos if ptp else (seconds + NTP_EPOCH) % 2**32 << 32 | (nanos << 32) // 10**9


def request(number, ptp, extensions):
    estimate = ErrorEstimate(S=0, Z=int(ptp), scale=3, multiplier=7)
    head = Request(seq=number, ts=0, err_estimate=estimate, ssid=SSID, mbz=0, tlv_objects=[])
    packet = bytearray(bytes(head))
    # scapy takes NTP's format as a number of seconds with a fraction: too coarse.
    packet[4:12] = now(ptp).to_bytes(8, "big")
    for kind, value in extensions:
        packet += bytes(STAMPTestTLV(flags=UNRECOGNIZED, type=kind, len=len(value), value=value))
    return bytes(packet)


def error_estimate(field):
    return {"s": field.S, "z": field.Z, "scale": field.scale, "multiplier": field.multiplier}


def read(octets):
    reply = Reply(octets)
    if bytes(reply) != octets:
        raise ValueError(f"scapy reads {octets.hex()} as {bytes(reply).hex()}")
    return {
        "length": len(octets),
        "seq": reply.seq,
        "timestamp": reply.ts,
        "errorEstimate": error_estimate(reply.err_estimate),
        "ssid": reply.ssid,
        "received": reply.ts_rx,
        "senderSeq": reply.seq_sender,
        # As above: scapy's value of NTP's format is too coarse to compare.
        "senderTimestamp": int.from_bytes(octets[28:36], "big"),
        "senderErrorEstimate": error_estimate(reply.err_estimate_sender),
        "mustBeZero": [reply.mbz1, reply.mbz2],
        "senderTtl": reply.ttl_sender,
        "tlvs": [
            {"flags": int(tlv.flags), "type": tlv.type, "length": tlv.len, "value": tlv.value.hex()}
            for tlv in reply.tlv_objects
        ],
    }


def main(host, port, form="ptp", extensions=""):
    ptp = {"ptp": True, "ntp": False}[form]
    tlvs = [(int(kind), bytes.fromhex(value)) for kind, _, value in (e.partition(":") for e in extensions.split(",") if e)]
    address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(address[0], socket.SOCK_DGRAM) as sender:
        sender.settimeout(DEADLINE)
        sender.connect(address[4])
        for number in range(REQUESTS):
            packet = request(number, ptp, tlvs)
            begun = time.time_ns()
            sender.send(packet)
            answer = sender.recv(2048)
            ended = time.time_ns()
            seen = read(answer) | {"sent": int.from_bytes(packet[4:12], "big"), "begun": begun, "ended": ended}
            print(json.dumps(seen), flush=True)


main(*sys.argv[1:])
