//! Whether a network can be built as it stands, and if not, who has to do what. Pure.

use peernet_api::{
    identity::NetworkSecret,
    v1alpha1::{PeerNetworkSpec, conditions::reason},
};

use crate::{
    network::{Identity, Network, NodeDefaults},
    observe::{Observed, SecretState},
    private_network,
    resources::FINGERPRINT_ANNOTATION,
};

/// Why the operator can't go on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// One of [`reason`].
    pub reason: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// What to do with a network.
#[derive(Debug)]
pub enum Decision {
    /// Build it, with this secret.
    Build(Box<Network>, NetworkSecret),
    /// Make it a secret first.
    CreateSecret(Box<Network>),
    /// Leave everything as it is, until Kubernetes has deleted what an earlier network of the same name left.
    Wait,
    /// Leave everything as it is, until somebody changes something.
    Stall(Stall),
}

/// Decides what to do with a network of this spec, given what is there.
#[must_use]
pub fn decide(
    identity: &Identity,
    spec: &PeerNetworkSpec,
    defaults: &NodeDefaults,
    observed: &Observed,
) -> Decision {
    let network = match Network::validate(identity, spec, defaults, &observed.claims) {
        Ok(network) => Box::new(network),
        Err(fields) => {
            let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
            return Decision::Stall(Stall {
                reason: reason::INVALID_SPEC,
                message: fields.join("; "),
            });
        }
    };
    if let Some(stall) = private_network::stall(&observed.key) {
        return Decision::Stall(stall);
    }
    let fingerprint = observed
        .workload
        .as_ref()
        .and_then(|workload| workload.fingerprint.as_deref());
    let name = identity.secret_name();
    let stall = |reason, message| Decision::Stall(Stall { reason, message });
    match (&observed.secret, fingerprint) {
        (SecretState::Valid(secret), None) => Decision::Build(network, secret.clone()),
        (SecretState::Valid(secret), Some(running)) if running == secret.fingerprint() => {
            Decision::Build(network, secret.clone())
        }
        (SecretState::Valid(_), Some(running)) => stall(
            reason::SECRET_CHANGED,
            format!(
                "Secret {name} is not the one that the running nodes have (fingerprint {running}). Put the old one back, \
                 or remove the annotation {FINGERPRINT_ANNOTATION} from the workload and restart its pods to give every \
                 node a new identity"
            ),
        ),
        (SecretState::Leaving, _) => Decision::Wait,
        (SecretState::Missing, None) => Decision::CreateSecret(network),
        (SecretState::Missing, Some(running)) => stall(
            reason::SECRET_MISSING,
            format!(
                "Secret {name} is gone while the network runs. A new one would give every node another identity, so none \
                 is made. Put it back from a backup (fingerprint {running}), or delete the workload to start anew"
            ),
        ),
        (SecretState::Damaged(problem), _) => stall(
            reason::SECRET_DAMAGED,
            format!(
                "Secret {name} can't be used: {problem}. Put it back from a backup, or delete it and the workload to start anew"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use peernet_api::v1alpha1::Workload;
    use serde_json::json;

    use super::*;
    use crate::{
        host_ports::Claims,
        network::fixtures::{defaults, resource},
        observe::ObservedWorkload,
        private_network::KeyState,
    };

    fn decided(
        spec: serde_json::Value,
        secret: SecretState,
        fingerprint: Option<&str>,
    ) -> Result<&'static str, Stall> {
        let resource = resource(spec);
        let workload = fingerprint.map(|fingerprint| ObservedWorkload {
            kind: Workload::StatefulSet,
            fingerprint: Some(fingerprint.to_owned()),
            wanted: 3,
            settled: true,
            block: None,
        });
        let observed = Observed {
            secret,
            key: KeyState::default(),
            workload,
            pods: Vec::new(),
            claims: Claims::default(),
        };
        match decide(
            &Identity::of(&resource).unwrap(),
            &resource.spec,
            &defaults(),
            &observed,
        ) {
            Decision::Build(..) => Ok("build"),
            Decision::CreateSecret(_) => Ok("create"),
            Decision::Wait => Ok("wait"),
            Decision::Stall(stall) => Err(stall),
        }
    }

    #[test]
    fn a_secret_is_made_once_and_never_over_live_identities() {
        let secret = NetworkSecret::new(&[5; 32]).unwrap();
        let fingerprint = secret.fingerprint();
        assert_eq!(decided(json!({}), SecretState::Missing, None), Ok("create"));
        assert_eq!(
            decided(json!({}), SecretState::Valid(secret.clone()), None),
            Ok("build")
        );
        assert_eq!(
            decided(json!({}), SecretState::Valid(secret.clone()), Some(&fingerprint)),
            Ok("build")
        );
        assert_eq!(decided(json!({}), SecretState::Leaving, None), Ok("wait"));
        for (state, running, reason) in [
            (SecretState::Missing, Some(fingerprint.as_str()), "SecretMissing"),
            (
                SecretState::Valid(secret),
                Some("0123456789abcdef"),
                "SecretChanged",
            ),
            (
                SecretState::Damaged("it has no key x".into()),
                None,
                "SecretDamaged",
            ),
            (
                SecretState::Damaged("it has no key x".into()),
                Some(fingerprint.as_str()),
                "SecretDamaged",
            ),
        ] {
            let stall = decided(json!({}), state, running).unwrap_err();
            assert_eq!(stall.reason, reason);
            assert!(
                stall.message.contains("Secret mesh-identity"),
                "{}",
                stall.message
            );
        }
    }

    #[test]
    fn a_wrong_spec_is_named_before_anything_is_made() {
        let spec = json!({"discovery": {"bootstrapPeers": ["/ip4/192.0.2.7/tcp/0/p2p/12D3"]}});
        let stall = decided(spec, SecretState::Missing, None).unwrap_err();
        assert_eq!(stall.reason, "InvalidSpec");
        assert!(
            stall.message.starts_with("spec.discovery.bootstrapPeers[0]: "),
            "{}",
            stall.message
        );
    }
}
