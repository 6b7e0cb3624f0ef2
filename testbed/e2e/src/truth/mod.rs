//! What the truth bench compares the agents' numbers with, and how: pure parts, without any of PeerNet's own code.
//!
//! | module | what it reads |
//! |---|---|
//! | [`pcap`] | packets, from `tcpdump`'s files |
//! | [`rounds`] | STAMP round trips, from the captures of both ends |
//! | [`held`] | how long the delaying program really held packets, from its log |
//! | [`samples`] | percentiles of samples, all of them kept |
//! | [`traces`] | what an agent itself says of each of its samples, from its log |

pub mod held;
pub mod pcap;
pub mod rounds;
pub mod samples;
pub mod traces;
