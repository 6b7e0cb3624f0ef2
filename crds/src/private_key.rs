//! The pre-shared key of a private network, and the file that holds it.
//!
//! A private network is libp2p's: every connection is encrypted with a key that all members share, before either side says
//! anything ([specification](https://github.com/libp2p/specs/blob/master/pnet/Private-Networks-PSK-V1.md)). The key follows
//! from the network's secret, or is the user's own. A file holds it as libp2p's other implementations have it:
//!
//! ```text
//! /key/swarm/psk/1.0.0/
//! /base16/
//! 64 hexadecimal digits
//! ```
//!
//! Several such keys may follow each other: the first is the one to connect by, the others are accepted, too. Or the
//! file is the 32 bytes of one key, and nothing else.

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::identity::{NetworkSecret, derive};

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
/// Most keys in one file.
pub const MAX_KEYS: usize = 4;
/// Longest file, in bytes.
pub const MAX_FILE: usize = 4096;

const HEADER: &str = "/key/swarm/psk/1.0.0/";
const BASE16: &str = "/base16/";
const BASE_64: &str = "/base64/";

/// A key that the members of a private network share. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PreSharedKey([u8; KEY_LEN]);

/// Why a file holds no keys. Nothing of what it holds is repeated.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidKeyFile {
    /// It is empty, but perhaps for blank lines.
    #[error("it is empty")]
    Empty,
    /// It is longer than [`MAX_FILE`].
    #[error("it is longer than {MAX_FILE} bytes")]
    TooLong,
    /// It is neither text nor one key.
    #[error("it is neither text nor {KEY_LEN} bytes")]
    NoText,
    /// A key does not begin as it should.
    #[error("line {0} is not {HEADER}")]
    NoHeader(usize),
    /// A key is written in a way that is not known here.
    #[error("line {0} is neither {BASE16} nor {BASE_64}")]
    NoEncoding(usize),
    /// A key has the wrong characters, or the wrong number of them.
    #[error("line {0} is no key of {KEY_LEN} bytes in the encoding that the line before names")]
    NoKey(usize),
    /// There are more than [`MAX_KEYS`].
    #[error("it holds more than {MAX_KEYS} keys")]
    TooMany,
}

impl PreSharedKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// A short public name for this key (16 hex digits): two keys that show the same one are the same. It tells nothing
    /// about the key itself.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&derive::<8>(&self.0, &["fingerprint"]))
    }

    /// The file that holds this key, for libp2p's other implementations.
    #[must_use]
    pub fn to_file(&self) -> String {
        format!("{HEADER}\n{BASE16}\n{}\n", HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreSharedKey({})", self.fingerprint())
    }
}

impl NetworkSecret {
    /// The key of the private network, where the user gives none: HKDF-SHA256 of the secret with the info
    /// `pre-shared-key`.
    #[must_use]
    pub fn pre_shared_key(&self) -> PreSharedKey {
        PreSharedKey(derive(self.bytes(), &["pre-shared-key"]))
    }
}

/// Reads a key file: the keys in its order, each once, at least one.
///
/// # Errors
/// [`InvalidKeyFile`] names the line.
pub fn parse(file: &[u8]) -> Result<Vec<PreSharedKey>, InvalidKeyFile> {
    if file.len() > MAX_FILE {
        return Err(InvalidKeyFile::TooLong);
    }
    // No text that holds a key is that short.
    if let Ok(bytes) = file.try_into() {
        return Ok(vec![PreSharedKey(bytes)]);
    }
    let text = std::str::from_utf8(file).map_err(|_| InvalidKeyFile::NoText)?;
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim_end()))
        .filter(|(_, line)| !line.is_empty());
    let mut keys = Vec::new();
    let mut last = 0;
    while let Some((number, header)) = lines.next() {
        if header != HEADER {
            return Err(InvalidKeyFile::NoHeader(number));
        }
        // A line that is missing is named as the one after the last.
        let (number, encoding) = lines.next().unwrap_or((number + 1, ""));
        let encoding = match encoding {
            BASE16 => &HEXLOWER_PERMISSIVE,
            BASE_64 => &BASE64,
            _ => return Err(InvalidKeyFile::NoEncoding(number)),
        };
        let (number, key) = lines.next().unwrap_or((number + 1, ""));
        let decoded = encoding.decode(key.as_bytes()).ok();
        let bytes = decoded.and_then(|bytes| <[u8; KEY_LEN]>::try_from(bytes).ok());
        let key = PreSharedKey(bytes.ok_or(InvalidKeyFile::NoKey(number))?);
        last += 1;
        if last > MAX_KEYS {
            return Err(InvalidKeyFile::TooMany);
        }
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Err(InvalidKeyFile::Empty);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> PreSharedKey {
        PreSharedKey::new([byte; KEY_LEN])
    }

    #[test]
    fn the_derived_key_never_changes() {
        // Pinned: a release that derives another one would split every private network while it is rolled out. The
        // derivation was checked with an independent implementation of RFC 5869.
        let secret = NetworkSecret::new(&[7; 32]).unwrap();
        let derived = secret.pre_shared_key();
        assert_eq!(
            derived.to_file().lines().last().unwrap(),
            "075d0575ebfa2cf8fc6245d76dbfbf24946366730bc080cbf29d2591a4dbffeb"
        );
        assert_eq!(derived.fingerprint(), "30740eaf8c6c56b1");
        assert_ne!(
            derived.fingerprint(),
            secret.fingerprint(),
            "the key's name is not the secret's"
        );
    }

    #[test]
    fn files_of_other_implementations_are_read() {
        let hex = "6189c5cf0b87fb800c1a9feeda73c6ab5e998db48fb9e6a978575c770ceef683";
        let by_hex = parse(format!("{HEADER}\n{BASE16}\n{hex}").as_bytes()).unwrap();
        assert_eq!(by_hex.len(), 1);
        for text in [
            format!("{HEADER}\n{BASE16}\n{hex}\n"),
            format!("{HEADER}\r\n{BASE16}\r\n{}\r\n\r\n", hex.to_uppercase()),
            format!("{HEADER}\n{BASE_64}\nYYnFzwuH+4AMGp/u2nPGq16ZjbSPueapeFdcdwzu9oM="),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), by_hex, "{text}");
        }
        assert_eq!(parse(by_hex[0].bytes()).unwrap(), by_hex, "the bytes alone");
    }

    #[test]
    fn a_file_holds_several_keys_in_order_and_each_once() {
        let text = [key(3), key(1), key(3), key(2)]
            .map(|key| key.to_file())
            .join("\n");
        assert_eq!(parse(text.as_bytes()).unwrap(), [key(3), key(1), key(2)]);
        let text: String = (0..5).map(|n| key(n).to_file()).collect();
        assert_eq!(parse(text.as_bytes()), Err(InvalidKeyFile::TooMany));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_not_repeated() {
        let whole = key(1).to_file();
        for (text, wrong) in [
            (String::new(), InvalidKeyFile::Empty),
            ("\n \n".to_owned(), InvalidKeyFile::Empty),
            ("hunter2".to_owned(), InvalidKeyFile::NoHeader(1)),
            (format!("\n{HEADER}\n"), InvalidKeyFile::NoEncoding(3)),
            (format!("{HEADER}\n/bin/\nxyz"), InvalidKeyFile::NoEncoding(2)),
            (format!("{HEADER}\n{BASE16}"), InvalidKeyFile::NoKey(3)),
            (format!("{HEADER}\n{BASE16}\nhunter2"), InvalidKeyFile::NoKey(3)),
            (
                format!("{HEADER}\n{BASE16}\n{}", "a".repeat(62)),
                InvalidKeyFile::NoKey(3),
            ),
            (format!("{whole}hunter2"), InvalidKeyFile::NoHeader(4)),
            ("x".repeat(MAX_FILE + 1), InvalidKeyFile::TooLong),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, wrong, "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert_eq!(parse(&[0xff; 33]), Err(InvalidKeyFile::NoText));
    }

    #[test]
    fn no_key_is_printed() {
        let shown = format!("{:?}", key(0xab));
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    }

    proptest! {
        #[test]
        fn every_key_survives_its_file(bytes in any::<[u8; KEY_LEN]>()) {
            let key = PreSharedKey::new(bytes);
            prop_assert_eq!(parse(key.to_file().as_bytes()), Ok(vec![key]));
        }

        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
