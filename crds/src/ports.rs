//! The ports of agents that share a node's network.
//!
//! Pods have an address of their own, and every agent the same ports. With `hostNetwork` the node's address is everybody's:
//! each network has a block of ports then, and each agent of it [`PORTS_PER_AGENT`] of them, by its ordinal in the
//! StatefulSet. In a DaemonSet there is one agent on a node, and all have the first ones.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// Ports that each agent has in the block, for TCP and UDP alike.
pub const PORTS_PER_AGENT: u16 = 8;
/// Where blocks are chosen: below the ports that Kubernetes gives to Services (30000 to 32767), and below those that the kernel
/// gives to outgoing connections (from 32768).
pub const CHOSEN: RangeInclusive<u16> = 20_000..=29_999;
/// Chosen blocks begin at multiples of this from the first one, and so have room for 32 agents before they grow.
pub const CHOSEN_STEP: u16 = 256;
/// With this code an agent ends that could not have one of its ports.
pub const EXIT_PORT_TAKEN: u8 = 3;

/// Place of the libp2p port among those of an agent.
pub const P2P: u16 = 0;
/// Place of the HTTP port.
pub const HTTP: u16 = 1;
/// Place of the STAMP port, over UDP.
pub const STAMP: u16 = 2;
/// Place of the API's port.
pub const API: u16 = 3;
/// Place of the WebSocket port.
pub const WEBSOCKET: u16 = 4;

/// A block of ports, for TCP and UDP alike. Written as `20000-20255`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

impl Block {
    /// A block of this length; `None` if it goes beyond the last port that there is, or is empty.
    #[must_use]
    pub fn new(first: u16, length: u32) -> Option<Self> {
        let last = u32::from(first).checked_add(length.checked_sub(1)?)?;
        Some(Self {
            first,
            last: u16::try_from(last).ok()?,
        })
    }

    /// Whether the two have a port in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The text is no block of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no block of ports: write FIRST-LAST")]
pub struct NoBlock;

impl FromStr for Block {
    type Err = NoBlock;

    fn from_str(text: &str) -> Result<Self, NoBlock> {
        let (first, last) = text.split_once('-').ok_or(NoBlock)?;
        let block = Self {
            first: first.parse().map_err(|_| NoBlock)?,
            last: last.parse().map_err(|_| NoBlock)?,
        };
        (block.first <= block.last).then_some(block).ok_or(NoBlock)
    }
}

/// The port of the agent with this ordinal, where that of the first agent is `first` and each next one has its own `step` ports
/// further on. `None` beyond the last port that there is.
#[must_use]
pub fn of_ordinal(first: u16, step: u16, ordinal: u16) -> Option<u16> {
    first.checked_add(step.checked_mul(ordinal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_it_is_written() {
        let block = Block::new(20_000, 24).unwrap();
        assert_eq!(block.to_string(), "20000-20023");
        assert_eq!("20000-20023".parse(), Ok(block));
        for text in ["", "1", "-", "2-1", "1-70000", "a-b", "1-2-3"] {
            assert_eq!(text.parse::<Block>(), Err(NoBlock), "{text}");
        }
    }

    #[test]
    fn blocks_end_with_the_last_port() {
        assert_eq!(Block::new(65_528, 8).map(|block| block.last), Some(65_535));
        assert_eq!(Block::new(65_528, 9), None);
        assert_eq!(Block::new(1, 0), None);
        assert_eq!(of_ordinal(65_000, PORTS_PER_AGENT, 66), Some(65_528));
        assert_eq!(of_ordinal(65_000, PORTS_PER_AGENT, 67), None);
        assert_eq!(of_ordinal(1, u16::MAX, 2), None);
    }

    #[test]
    fn blocks_that_share_one_port_overlap() {
        let block = |first, last| Block { first, last };
        assert!(block(1, 5).overlaps(&block(5, 9)) && block(5, 9).overlaps(&block(1, 5)));
        assert!(block(1, 9).overlaps(&block(3, 4)) && block(3, 4).overlaps(&block(1, 9)));
        assert!(!block(1, 5).overlaps(&block(6, 9)) && !block(6, 9).overlaps(&block(1, 5)));
    }
}
