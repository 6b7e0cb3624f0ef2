//! Packets from a capture file: the classic format with nanoseconds, as `tcpdump --time-stamp-precision=nano` writes it
//! ([draft-ietf-opsawg-pcap](https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/)), of Ethernet frames with IPv4.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Magic number of files whose stamps are in nanoseconds.
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const LINK_ETHERNET: u32 = 1;
const ETHERNET_HEADER: usize = 14;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A segment of TCP.
    Tcp,
    /// A datagram of UDP.
    Udp,
}

/// A packet as it passed the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When, by the kernel's wall clock, in nanoseconds.
    pub nanos: i64,
    /// What it is.
    pub transport: Transport,
    /// Where it comes from.
    pub from: SocketAddrV4,
    /// Where it goes to.
    pub to: SocketAddrV4,
    /// Length of the whole frame on the wire, in bytes.
    pub frame_len: usize,
    /// A datagram's payload, as far as it was captured; of a segment, all that follows the ports.
    pub payload: Vec<u8>,
}

/// What is wrong with a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not begin as such files do.
    Magic(u32),
    /// Its frames are not Ethernet's.
    Link(u32),
    /// It ends within its first header.
    Short,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Magic(magic) => write!(f, "no capture with nanoseconds: it begins with {magic:08x}"),
            Self::Link(link) => write!(f, "a capture of link type {link}, not of Ethernet"),
            Self::Short => write!(f, "a capture without a header"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// The TCP segments and UDP datagrams of a capture, in the order of the file. Other frames are left out, fragments too, and a
/// last record that the end of the file cuts.
///
/// # Errors
/// If the file is no capture with nanoseconds of Ethernet frames.
pub fn read(file: &[u8]) -> Result<Vec<Packet>, Unreadable> {
    let header = file.get(..FILE_HEADER).ok_or(Unreadable::Short)?;
    let little = u32_at(header, 0, true) == Some(MAGIC_NANOS);
    let magic = u32_at(header, 0, little).ok_or(Unreadable::Short)?;
    if magic != MAGIC_NANOS {
        return Err(Unreadable::Magic(magic));
    }
    // The upper bits tell of frame check sequences.
    let link = u32_at(header, 20, little).ok_or(Unreadable::Short)? & 0x0fff_ffff;
    if link != LINK_ETHERNET {
        return Err(Unreadable::Link(link));
    }
    let mut packets = Vec::new();
    let mut rest = file.get(FILE_HEADER..).unwrap_or_default();
    while let Some((seconds, nanos, captured, frame_len)) = record_header(rest, little) {
        let Some(frame) = rest.get(RECORD_HEADER..RECORD_HEADER + captured) else {
            break;
        };
        if let Some((transport, from, to, payload)) = frame_parts(frame) {
            packets.push(Packet {
                nanos: i64::from(seconds) * 1_000_000_000 + i64::from(nanos),
                transport,
                from,
                to,
                frame_len,
                payload: payload.to_vec(),
            });
        }
        rest = rest.get(RECORD_HEADER + captured..).unwrap_or_default();
    }
    Ok(packets)
}

fn record_header(rest: &[u8], little: bool) -> Option<(u32, u32, usize, usize)> {
    let captured = usize::try_from(u32_at(rest, 8, little)?).ok()?;
    let length = usize::try_from(u32_at(rest, 12, little)?).ok()?;
    Some((
        u32_at(rest, 0, little)?,
        u32_at(rest, 4, little)?,
        captured,
        length,
    ))
}

fn u32_at(bytes: &[u8], at: usize, little: bool) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(if little {
        u32::from_le_bytes(bytes)
    } else {
        u32::from_be_bytes(bytes)
    })
}

fn frame_parts(frame: &[u8]) -> Option<(Transport, SocketAddrV4, SocketAddrV4, &[u8])> {
    if frame.get(12..14)? != TYPE_IPV4 {
        return None;
    }
    let packet = frame.get(ETHERNET_HEADER..)?;
    let header_len = usize::from(*packet.first()? & 0x0f) * 4;
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x3fff;
    // The frame may be padded to Ethernet's smallest length.
    let total_len = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let packet = packet.get(..total_len).unwrap_or(packet);
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let (transport, skipped) = match *packet.get(9)? {
        TCP => (Transport::Tcp, 4),
        UDP => (Transport::Udp, UDP_HEADER),
        _ => return None,
    };
    let body = packet.get(header_len..)?;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let (from, to) = (
        SocketAddrV4::new(address(12)?, port(0)?),
        SocketAddrV4::new(address(16)?, port(2)?),
    );
    (fragment == 0).then_some((transport, from, to, body.get(skipped..)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame with a UDP datagram, written down by hand after RFC 791, RFC 768 and IEEE 802.3.
    pub(crate) fn frame(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0x00]);
        let total = u16::try_from(28 + payload.len()).unwrap();
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(from.ip().octets());
        frame.extend(to.ip().octets());
        frame.extend(from.port().to_be_bytes());
        frame.extend(to.port().to_be_bytes());
        frame.extend((total - 20).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    fn file(records: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = MAGIC_NANOS.to_le_bytes().to_vec();
        file.extend([2, 0, 4, 0]);
        file.extend([0; 8]);
        file.extend(262_144_u32.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        for (seconds, nanos, frame) in records {
            let length = u32::try_from(frame.len()).unwrap();
            for word in [*seconds, *nanos, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(*frame);
        }
        file
    }

    const A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 40_000);
    const B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 8620);

    #[test]
    fn datagrams_come_out_with_their_stamps() {
        let frame = frame(A, B, b"payload");
        let packets = read(&file(&[(1_700_000_000, 999_999_999, &frame)])).unwrap();
        let [packet] = packets.as_slice() else {
            panic!("{packets:?}")
        };
        assert_eq!(packet.nanos, 1_700_000_000_999_999_999);
        assert_eq!((packet.transport, packet.from, packet.to), (Transport::Udp, A, B));
        assert_eq!(
            (packet.frame_len, packet.payload.as_slice()),
            (14 + 28 + 7, b"payload".as_slice())
        );
    }

    #[test]
    fn padding_is_no_payload() {
        let mut padded = frame(A, B, b"x");
        padded.resize(60, 0);
        let packets = read(&file(&[(1, 1, &padded)])).unwrap();
        assert_eq!(packets[0].payload, b"x");
    }

    #[test]
    fn what_is_no_such_packet_is_left_out() {
        let mut arp = frame(A, B, b"");
        arp[13] = 0x06;
        let mut fragment = frame(A, B, b"");
        fragment[21] = 1;
        let mut icmp = frame(A, B, b"");
        icmp[23] = 1;
        let records = [
            (1, 1, arp.as_slice()),
            (1, 2, &fragment),
            (1, 3, &icmp),
            (1, 4, &[]),
        ];
        assert_eq!(read(&file(&records)).unwrap(), []);
    }

    #[test]
    fn a_cut_file_gives_what_is_whole() {
        let frame = frame(A, B, b"payload");
        let whole = file(&[(1, 1, &frame), (1, 2, &frame)]);
        for cut in FILE_HEADER..whole.len() {
            assert!(read(&whole[..cut]).unwrap().len() < 2);
        }
        assert_eq!(read(&whole).unwrap().len(), 2);
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(read(b"short"), Err(Unreadable::Short));
        let mut micros = file(&[]);
        micros[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        assert_eq!(read(&micros), Err(Unreadable::Magic(0xd4c3_b2a1)));
        let mut cooked = file(&[]);
        cooked[20] = 113;
        assert_eq!(read(&cooked), Err(Unreadable::Link(113)));
    }

    #[test]
    fn the_other_byte_order_reads_as_well() {
        let frame = frame(A, B, b"x");
        let mut big = MAGIC_NANOS.to_be_bytes().to_vec();
        big.extend([0, 2, 0, 4]);
        big.extend([0; 12]);
        big.extend(1_u32.to_be_bytes());
        let length = u32::try_from(frame.len()).unwrap();
        for word in [7, 8, length, length] {
            big.extend(u32::to_be_bytes(word));
        }
        big.extend(&frame);
        assert_eq!(read(&big).unwrap()[0].nanos, 7_000_000_008);
    }
}
