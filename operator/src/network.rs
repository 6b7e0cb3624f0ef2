//! A PeerNetwork that was checked: the only input of the builders. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use peernet_api::{
    bootstrap, duration,
    ports::Block,
    v1alpha1::{ImagePullPolicy, PeerNetwork, PeerNetworkSpec, Workload},
};

use crate::host_ports::{self, Claims, Ports};

/// What the operator was installed with, for networks that don't say otherwise.
#[derive(Clone, Debug)]
pub struct NodeDefaults {
    /// Image of the agents.
    pub image: String,
    /// When the kubelet pulls it.
    pub image_pull_policy: ImagePullPolicy,
}

/// Who a network is, whatever its spec says.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The resource's name, which its objects carry, too.
    pub name: String,
    /// The resource's namespace.
    pub namespace: String,
    /// The resource's uid: another resource of the same name has another.
    pub uid: String,
    /// Makes Kubernetes delete an object when the resource is deleted.
    pub owner: OwnerReference,
}

/// A network whose spec was found right.
#[derive(Clone, Debug)]
pub struct Network {
    /// Who it is.
    pub identity: Identity,
    /// Its spec, with every rule of this module checked.
    pub spec: PeerNetworkSpec,
    /// The agents' image.
    pub image: String,
    /// When the kubelet pulls it.
    pub image_pull_policy: ImagePullPolicy,
    /// The ports of its agents.
    pub ports: Ports,
    /// The block of ports that these are of, on the nodes' own network.
    pub block: Option<Block>,
}

/// A field that only the operator could find wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// Path of the field, like `spec.probe.interval`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Identity {
    /// Who `resource` is; `None` if it was never stored in a cluster.
    #[must_use]
    pub fn of(resource: &PeerNetwork) -> Option<Self> {
        Some(Self {
            name: resource.metadata.name.clone()?,
            namespace: resource.namespace()?,
            uid: resource.uid()?,
            // Without `blockOwnerDeletion`: nothing here needs the owner to wait for it, and setting it asks for the
            // permission to update finalizers where admission guards owner references.
            owner: OwnerReference {
                block_owner_deletion: None,
                ..resource.controller_owner_ref(&())?
            },
        })
    }

    /// Name of the Secret that the network's identities follow from.
    #[must_use]
    pub fn secret_name(&self) -> String {
        format!("{}-identity", self.name)
    }

    /// `namespace/name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Network {
    /// Checks what the schema can't.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn validate(
        identity: &Identity,
        spec: &PeerNetworkSpec,
        defaults: &NodeDefaults,
        claims: &Claims,
    ) -> Result<Self, Vec<InvalidField>> {
        let mut invalid = Vec::new();
        for (at, peer) in spec.discovery.bootstrap_peers.iter().enumerate() {
            if let Err(error) = bootstrap::parse(peer) {
                invalid.push(InvalidField {
                    field: format!("spec.discovery.bootstrapPeers[{at}]"),
                    problem: error.to_string(),
                });
            }
        }
        let probe = &spec.probe;
        for (field, text) in [
            ("probe.interval", &probe.interval),
            ("probe.timeout", &probe.timeout),
            ("probe.window", &probe.window),
            (
                "relay.limits.circuitDuration",
                &spec.relay.limits.circuit_duration,
            ),
        ] {
            if let Err(error) = duration::parse(text) {
                invalid.push(InvalidField {
                    field: format!("spec.{field}"),
                    problem: error.to_string(),
                });
            }
        }
        let block = host_ports::block(spec, claims).unwrap_or_else(|field| {
            invalid.push(field);
            None
        });
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(Self {
            ports: block.map_or(Ports::OF_PODS, |block| Ports::of_block(block, spec.workload)),
            block,
            identity: identity.clone(),
            spec: spec.clone(),
            image: spec.image.clone().unwrap_or_else(|| defaults.image.clone()),
            image_pull_policy: spec.image_pull_policy.unwrap_or(defaults.image_pull_policy),
        })
    }

    /// Whether the agents run in a StatefulSet.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.spec.workload == Workload::StatefulSet
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A network called `mesh` in the namespace `lab`: other words than the product's own, so that a swapped name shows.
    pub(crate) fn resource(spec: serde_json::Value) -> PeerNetwork {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "peernet.dev/v1alpha1", "kind": "PeerNetwork", "spec": spec,
            "metadata": {"name": "mesh", "namespace": "lab", "uid": "11111111-2222", "generation": 7},
        }))
        .unwrap()
    }

    pub(crate) fn defaults() -> NodeDefaults {
        NodeDefaults {
            image: "agents:1".into(),
            image_pull_policy: ImagePullPolicy::IfNotPresent,
        }
    }

    pub(crate) fn network(spec: serde_json::Value) -> Network {
        validated(&resource(spec)).unwrap()
    }

    pub(crate) fn validated(resource: &PeerNetwork) -> Result<Network, Vec<InvalidField>> {
        let identity = Identity::of(resource).unwrap();
        Network::validate(&identity, &resource.spec, &defaults(), &Claims::default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::fixtures::*;

    #[test]
    fn a_wrong_bootstrap_peer_is_named_by_its_place() {
        let resource =
            resource(json!({"discovery": {"bootstrapPeers": ["/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWno"]}}));
        let invalid = validated(&resource).unwrap_err();
        assert_eq!(invalid.len(), 1);
        assert!(
            invalid[0]
                .to_string()
                .starts_with("spec.discovery.bootstrapPeers[0]: \"/ip4/"),
            "{}",
            invalid[0]
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        let resource = resource(json!({"probe": {"interval": "1x", "timeout": "", "window": "5m"}}));
        let invalid = validated(&resource).unwrap_err();
        let fields: Vec<_> = invalid.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["spec.probe.interval", "spec.probe.timeout"]);
    }

    #[test]
    fn the_operators_image_serves_networks_that_name_none() {
        assert_eq!(network(json!({})).image, "agents:1");
        assert_eq!(network(json!({"image": "mine:2"})).image, "mine:2");
    }
}
