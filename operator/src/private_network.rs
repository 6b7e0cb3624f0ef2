//! The key of a private network, as far as the operator knows it: whether the user's Secret holds one, and which nodes
//! connect by it. Pure.

use k8s_openapi::api::core::v1::Secret;
use peernet_api::{
    identity::NetworkSecret,
    private_key,
    v1alpha1::{PrivateNetwork, PrivateNetworkSecret, PrivateNetworkStatus, conditions::reason},
};

use crate::{decide::Stall, pull::Pulled};

/// State of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyState {
    /// The network is not private.
    #[default]
    NotNeeded,
    /// It follows from the network's Secret.
    Derived,
    /// The user's Secret holds it. Its fingerprint.
    Given(String),
    /// The user's Secret does not exist.
    Missing(PrivateNetworkSecret),
    /// The user's Secret exists and does not hold what it should; the text says why.
    Damaged(PrivateNetworkSecret, String),
}

/// The user's Secret that the key is in, if the network wants one.
#[must_use]
pub fn wanted(spec: &PrivateNetwork) -> Option<&PrivateNetworkSecret> {
    spec.secret_ref.as_ref().filter(|_| spec.enabled)
}

/// What became of the key. `secret` is the one that [`wanted`] names.
#[must_use]
pub fn key_state(spec: &PrivateNetwork, secret: Option<&Secret>) -> KeyState {
    let Some(reference) = wanted(spec) else {
        return if spec.enabled {
            KeyState::Derived
        } else {
            KeyState::NotNeeded
        };
    };
    let Some(secret) = secret else {
        return KeyState::Missing(reference.clone());
    };
    let damaged = |why: String| KeyState::Damaged(reference.clone(), why);
    match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
        None => damaged(format!("it has no key {}", reference.key)),
        Some(file) => match private_key::parse(&file.0) {
            Ok(keys) => keys
                .first()
                .map_or(KeyState::Derived, |key| KeyState::Given(key.fingerprint())),
            Err(error) => damaged(format!("{}: {error}", reference.key)),
        },
    }
}

/// Why a network can't be built with this key, if so.
#[must_use]
pub fn stall(key: &KeyState) -> Option<Stall> {
    match key {
        KeyState::NotNeeded | KeyState::Derived | KeyState::Given(_) => None,
        KeyState::Missing(reference) => Some(Stall {
            reason: reason::KEY_SECRET_MISSING,
            message: format!(
                "spec.privateNetwork.secretRef: Secret {} does not exist. Make it, with the private network's key under \
                 {}; agents that run go on with the key that they have",
                reference.name, reference.key
            ),
        }),
        KeyState::Damaged(reference, why) => Some(Stall {
            reason: reason::KEY_SECRET_DAMAGED,
            message: format!(
                "spec.privateNetwork.secretRef: Secret {} holds no key of a private network: {why}. Put a swarm key \
                 (/key/swarm/psk/1.0.0/) or 32 bytes there; agents that run go on with the key that they have",
                reference.name
            ),
        }),
    }
}

/// Which nodes connect by the key.
#[must_use]
pub fn status(
    key: &KeyState,
    secret: Option<&NetworkSecret>,
    pulled: &[Pulled],
) -> Option<PrivateNetworkStatus> {
    let key_fingerprint = match key {
        KeyState::Given(fingerprint) => fingerprint.clone(),
        KeyState::Derived => secret?.pre_shared_key().fingerprint(),
        KeyState::NotNeeded | KeyState::Missing(_) | KeyState::Damaged(..) => return None,
    };
    let reports = || pulled.iter().filter_map(|pulled| pulled.as_ref().ok());
    let on_key = reports()
        .filter_map(|answer| answer.report.private_network.as_ref())
        .filter(|private| private.key == key_fingerprint)
        .count();
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    Some(PrivateNetworkStatus {
        nodes_on_key: count(on_key),
        nodes_reporting: count(reports().count()),
        key_fingerprint,
    })
}

#[cfg(test)]
mod tests {
    use peernet_api::{private_key::PreSharedKey, report::PrivateNetworkReport, v1alpha1::ReportOutcome};
    use serde_json::{Value, json};

    use super::*;
    use crate::reports::tests::{answer, report};

    fn spec(value: Value) -> PrivateNetwork {
        serde_json::from_value(value).unwrap()
    }

    fn secret(entries: &[(&str, &str)]) -> Secret {
        Secret {
            data: Some(
                entries
                    .iter()
                    .map(|(key, text)| {
                        let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
                        ((*key).to_owned(), bytes)
                    })
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    #[test]
    fn a_key_is_the_users_or_follows_from_the_secret_or_is_not_needed() {
        assert_eq!(key_state(&spec(json!({})), None), KeyState::NotNeeded);
        assert_eq!(
            key_state(&spec(json!({"enabled": true})), None),
            KeyState::Derived
        );
        let own = spec(json!({"enabled": true, "secretRef": {"name": "own"}}));
        let (first, second) = (PreSharedKey::new([1; 32]), PreSharedKey::new([2; 32]));
        let file = first.to_file() + &second.to_file();
        assert_eq!(
            key_state(&own, Some(&secret(&[("swarm.key", &file)]))),
            KeyState::Given(first.fingerprint())
        );
    }

    #[test]
    fn what_is_wrong_with_the_users_secret_is_said_without_what_it_holds() {
        let own = spec(json!({"enabled": true, "secretRef": {"name": "own", "key": "psk"}}));
        for (secret, reason, says) in [
            (None, "KeySecretMissing", "Secret own does not exist"),
            (
                Some(secret(&[("swarm.key", "x")])),
                "KeySecretDamaged",
                "it has no key psk",
            ),
            (
                Some(secret(&[("psk", "hunter2")])),
                "KeySecretDamaged",
                "psk: line 1 is not /key/swarm/psk/1.0.0/",
            ),
        ] {
            let stall = stall(&key_state(&own, secret.as_ref())).unwrap();
            assert_eq!(stall.reason, reason);
            assert!(stall.message.starts_with("spec.privateNetwork.secretRef: "));
            assert!(stall.message.contains(says), "{}", stall.message);
            assert!(!stall.message.contains("hunter2"), "{}", stall.message);
        }
    }

    #[test]
    fn nodes_that_connect_by_the_key_are_told_from_those_that_do_not_yet() {
        let with = |key: &str| {
            let mut report = report("mesh-0");
            report.private_network = Some(PrivateNetworkReport {
                key: key.into(),
                accepted: vec!["new".into()],
            });
            Ok(answer(report))
        };
        let pulled = [
            with("new"),
            with("old"),
            Ok(answer(report("mesh-2"))),
            Err(ReportOutcome::TimedOut),
        ];
        let status = status(&KeyState::Given("new".into()), None, &pulled).unwrap();
        assert_eq!((status.nodes_on_key, status.nodes_reporting), (1, 3));
    }

    #[test]
    fn the_derived_key_is_known_by_the_secret() {
        let network = NetworkSecret::new(&[7; 32]).unwrap();
        let of = |key, secret| status(key, secret, &[]).map(|status| status.key_fingerprint);
        assert_eq!(
            of(&KeyState::Derived, Some(&network)),
            Some(network.pre_shared_key().fingerprint())
        );
        assert_eq!(of(&KeyState::Derived, None), None);
        assert_eq!(of(&KeyState::NotNeeded, Some(&network)), None);
    }
}
