//! Keys and values are bytes. As text they are themselves if they are UTF-8, and base64 in any case.

use data_encoding::BASE64URL_NOPAD;

/// Base64 of RFC 4648, section 5: for URLs, without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// Reads base64 of either alphabet, with or without padding. `None`: it is none.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text
        .trim_end_matches(['\n', '\r'])
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// Bytes as text, if they are UTF-8 without control characters other than tabs and line ends: what a terminal can show.
#[must_use]
pub fn shown(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(plain).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_common_spelling_of_base64_is_read() {
        let bytes = [0xfb, 0xff, 0xfe, 0x00];
        for text in ["-__-AA", "+//+AA", "+//+AA==", "-__-AA==\n"] {
            assert_eq!(decode(text).as_deref(), Some(&bytes[..]), "{text}");
        }
        assert_eq!(decode("a*b"), None);
        assert_eq!(decode("a"), None);
    }

    #[test]
    fn only_what_a_terminal_can_show_is_text() {
        assert_eq!(shown("Grüße\n".as_bytes()).as_deref(), Some("Grüße\n"));
        assert_eq!(shown(b"\x1b[2J"), None);
        assert_eq!(shown(&[0xff]), None);
    }

    proptest! {
        #[test]
        fn bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
