//! The signature around a report: a libp2p signed envelope
//! ([libp2p RFC 0002](https://github.com/libp2p/specs/blob/master/RFC/0002-signed-envelopes.md)).

use libp2p_core::{SignedEnvelope, signed_envelope::ReadPayloadError};
use libp2p_identity::{Keypair, PeerId, SigningError};

use crate::report::{MAX_BYTES, Report, VERSION};

/// Keeps these signatures apart from every other use of the same key.
const DOMAIN: &str = "peernet-report";
const PAYLOAD_TYPE: &[u8] = b"/peernet/report/1";

/// Why a report could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The report could not be written as JSON.
    #[error("failed to encode the report")]
    Encode(#[from] serde_json::Error),
    /// The key cannot sign.
    #[error("failed to sign the report")]
    Sign(#[from] SigningError),
}

/// Why a sealed report was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is longer than [`MAX_BYTES`].
    #[error("the report is longer than {MAX_BYTES} bytes")]
    TooLarge,
    /// The bytes are no envelope, or its payload is no report.
    #[error("the report can't be decoded: {0}")]
    Undecodable(String),
    /// The signature does not fit the payload, or was made for another purpose.
    #[error("the report's signature is wrong")]
    WrongSignature,
    /// The report has a version that this program does not know.
    #[error("the report has version {0}, known is {VERSION}")]
    UnknownVersion(u32),
}

/// Signs a report with the agent's key. The result is what the agent serves.
///
/// # Errors
/// [`SealError`] if the report can't be encoded or the key can't sign.
pub fn seal(report: &Report, key: &Keypair) -> Result<Vec<u8>, SealError> {
    let payload = serde_json::to_vec(report)?;
    let envelope = SignedEnvelope::new(key, DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)?;
    Ok(envelope.into_protobuf_encoding())
}

/// Checks the signature and decodes the report. Who signed it is for the caller to judge.
///
/// # Errors
/// [`OpenError`] says what is wrong with the bytes.
pub fn open(bytes: &[u8]) -> Result<(Report, PeerId), OpenError> {
    if bytes.len() > MAX_BYTES {
        return Err(OpenError::TooLarge);
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes)
        .map_err(|error| OpenError::Undecodable(error.to_string()))?;
    let (payload, key) = envelope
        .payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE)
        .map_err(|error| match error {
            ReadPayloadError::InvalidSignature => OpenError::WrongSignature,
            other @ ReadPayloadError::UnexpectedPayloadType { .. } => {
                OpenError::Undecodable(other.to_string())
            }
        })?;
    let report: Report =
        serde_json::from_slice(payload).map_err(|error| OpenError::Undecodable(error.to_string()))?;
    if report.version != VERSION {
        return Err(OpenError::UnknownVersion(report.version));
    }
    Ok((report, key.to_peer_id()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{histogram::Histogram, identity::NetworkSecret, report::PeerReport};

    fn report() -> Report {
        let mut rtt = Histogram::new();
        rtt.record(200_000);
        Report {
            version: VERSION,
            nonce: "00ff".into(),
            network: "demo/mesh".into(),
            name: "mesh-0".into(),
            agent_version: "0.1.0".into(),
            uptime_millis: 5_000,
            window_millis: 300_000,
            heartbeat_age_millis: 3,
            events_dropped: 0,
            peers: vec![PeerReport {
                peer_id: "12D3".into(),
                name: "mesh-1".into(),
                connected: true,
                answered: 1,
                rtt,
                newest_sample_age_millis: Some(17),
                ..Default::default()
            }],
            ..Report::default()
        }
    }

    #[test]
    fn a_sealed_report_opens_with_its_signer() {
        let secret = NetworkSecret::new(&[3; 32]).unwrap();
        let sealed = seal(&report(), &secret.keypair("mesh-0")).unwrap();
        assert_eq!(open(&sealed).unwrap(), (report(), secret.peer_id("mesh-0")));
    }

    #[test]
    fn other_versions_are_named() {
        let key = NetworkSecret::new(&[3; 32]).unwrap().keypair("mesh-0");
        let sealed = seal(
            &Report {
                version: 1,
                ..report()
            },
            &key,
        )
        .unwrap();
        assert!(matches!(open(&sealed), Err(OpenError::UnknownVersion(1))));
    }

    #[test]
    fn a_signature_for_another_purpose_is_refused() {
        let key = NetworkSecret::new(&[3; 32]).unwrap().keypair("mesh-0");
        let payload = serde_json::to_vec(&report()).unwrap();
        let foreign =
            SignedEnvelope::new(&key, "libp2p-peer-record".into(), PAYLOAD_TYPE.to_vec(), payload).unwrap();
        assert!(matches!(
            open(&foreign.into_protobuf_encoding()),
            Err(OpenError::WrongSignature)
        ));
    }

    #[test]
    fn an_oversized_report_is_not_even_decoded() {
        assert!(matches!(open(&vec![0; MAX_BYTES + 1]), Err(OpenError::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let key = NetworkSecret::new(&[3; 32]).unwrap().keypair("mesh-0");
            let mut sealed = seal(&report(), &key).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            // A changed key may still be a key, but then it is another peer's.
            prop_assert!(open(&sealed).is_err());
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(open(&bytes).is_err());
        }
    }
}
