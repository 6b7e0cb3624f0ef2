//! What the API takes, from text. Pure.

use libp2p::{PeerId, kad::RecordKey};

use super::{errors::Error, text};
use crate::dht::{Limits, Quorum, REPLICATION};

/// Probes of one request, at most.
pub(super) const MAX_PINGS: usize = 10;

/// The parameters of a query.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes those that a path knows.
    pub(super) fn new(given: Vec<(String, String)>, known: &[&str]) -> Result<Self, Error> {
        match given.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(Error::unknown(name, known)),
            None => Ok(Self(given)),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// How many agents must have a record.
    pub(super) fn quorum(&self, default: Quorum) -> Result<Quorum, Error> {
        let text = self.get("quorum");
        match text {
            None => Ok(default),
            Some("one") => Ok(Quorum::One),
            Some("majority") => Ok(Quorum::Majority),
            Some("all") => Ok(Quorum::All),
            Some(text) => match text.parse() {
                Ok(count) if (1..=REPLICATION).contains(&count) => Ok(Quorum::Count(count)),
                _ => Err(Error::parameter(
                    "quorum",
                    format!(
                        "{text:?} is no quorum: write one, majority, all or a number from 1 to {REPLICATION}"
                    ),
                )),
            },
        }
    }

    /// How many probes.
    pub(super) fn count(&self) -> Result<usize, Error> {
        match self.get("count").map(str::parse) {
            None => Ok(1),
            Some(Ok(count)) if (1..=MAX_PINGS).contains(&count) => Ok(count),
            Some(_) => Err(Error::parameter(
                "count",
                format!("write a number from 1 to {MAX_PINGS}"),
            )),
        }
    }

    /// The bytes that a path's text stands for: its own, or what it says in base64.
    pub(super) fn key(&self, parameter: &'static str, given: &str) -> Result<RecordKey, Error> {
        let encoding = match parameter {
            "name" => "nameEncoding",
            _ => "keyEncoding",
        };
        let bytes = decoded(self.get(encoding), encoding, parameter, given.as_bytes().to_vec())?;
        let limit = Limits::DEFAULT.key_bytes;
        if bytes.is_empty() || bytes.len() > limit {
            return Err(Error::parameter(
                parameter,
                format!("it has 1 to {limit} bytes, this one {}", bytes.len()),
            ));
        }
        Ok(RecordKey::from(bytes))
    }

    /// The value that a body stands for.
    pub(super) fn value(&self, body: Vec<u8>) -> Result<Vec<u8>, Error> {
        let value = decoded(self.get("valueEncoding"), "valueEncoding", "body", body)?;
        if value.len() > Limits::DEFAULT.value_bytes {
            return Err(Error::too_large(Limits::DEFAULT.value_bytes));
        }
        Ok(value)
    }
}

fn decoded(
    encoding: Option<&str>,
    name: &'static str,
    parameter: &'static str,
    given: Vec<u8>,
) -> Result<Vec<u8>, Error> {
    match encoding {
        None | Some("raw") => Ok(given),
        Some("base64") => String::from_utf8(given)
            .ok()
            .and_then(|given| text::decode(&given))
            .ok_or_else(|| Error::parameter(parameter, "it is no base64")),
        Some(other) => Err(Error::parameter(
            name,
            format!("{other:?} is no encoding: write raw or base64"),
        )),
    }
}

/// The id of a peer.
pub(super) fn peer_id(given: &str) -> Result<PeerId, Error> {
    given.parse().map_err(|error| {
        Error::parameter(
            "peerId",
            format!("{given:?} is no peer id ({error}): write for example 12D3KooW..."),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(given: &[(&str, &str)]) -> Parameters {
        Parameters(
            given
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    fn problem<T>(result: Result<T, Error>) -> String {
        match result {
            Ok(_) => "none".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn quorums_are_words_or_numbers() {
        for (text, quorum) in [
            ("one", Quorum::One),
            ("majority", Quorum::Majority),
            ("all", Quorum::All),
            ("20", Quorum::Count(20)),
        ] {
            assert_eq!(
                parameters(&[("quorum", text)]).quorum(Quorum::One).unwrap(),
                quorum
            );
        }
        for text in ["", "0", "21", "most", "-1"] {
            let problem = problem(parameters(&[("quorum", text)]).quorum(Quorum::One));
            assert!(problem.contains("majority"), "{problem}");
        }
    }

    #[test]
    fn binary_keys_come_as_base64() {
        let given = parameters(&[("keyEncoding", "base64")]);
        assert_eq!(given.key("key", "_wA").unwrap().as_ref(), [0xff, 0]);
        assert!(problem(given.key("key", "_*")).contains("no base64"));
        assert_eq!(parameters(&[]).key("key", "_wA").unwrap().as_ref(), b"_wA");
        assert!(problem(parameters(&[("keyEncoding", "hex")]).key("key", "00")).contains("keyEncoding"));
        assert!(problem(parameters(&[]).key("key", "")).contains("1 to 256"));
        assert!(problem(parameters(&[]).key("key", &"k".repeat(257))).contains("257"));
    }

    #[test]
    fn what_a_path_does_not_know_is_named() {
        let given = vec![("quorom".to_owned(), "all".to_owned())];
        let problem = problem(Parameters::new(given, &["quorum"]));
        assert!(
            problem.contains("quorom") && problem.contains("takes quorum"),
            "{problem}"
        );
    }

    #[test]
    fn a_value_has_a_bound_whatever_it_comes_as() {
        let large = vec![b'x'; Limits::DEFAULT.value_bytes + 1];
        assert!(problem(parameters(&[]).value(large.clone())).contains("ValueTooLarge"));
        let encoded = text::encode(&large).into_bytes();
        assert!(problem(parameters(&[("valueEncoding", "base64")]).value(encoded)).contains("ValueTooLarge"));
    }
}
