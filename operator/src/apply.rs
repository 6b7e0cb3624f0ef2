//! Writing the desired objects: server-side apply, prune of what is no longer desired, and the Secret, once.

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::reflector::Store,
};
use peernet_api::{
    identity::{NetworkSecret, SECRET_KEY, SECRET_LEN},
    v1alpha1::conditions::reason,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api_call::{ApiCallError, namespace_is_ending, with_deadline},
    decide::Stall,
    network::Identity,
    observe::{SecretState, Stores, belongs_to, is_leaving, owned, secret_state},
    resources::{Desired, DesiredWorkload, metadata},
};

/// Under this name the operator owns the fields that it applies.
pub const FIELD_MANAGER: &str = "peernet-operator";

/// Why the desired objects are not all there.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody has to change something.
    #[error("{}: {}", .0.reason, .0.message)]
    Stalled(Stall),
    /// Something has to be gone first, and is going.
    #[error("waiting for the end of {0}")]
    Waiting(String),
    /// It may go better next time.
    #[error(transparent)]
    Api(#[from] ApiCallError),
    /// The object could not be written as JSON.
    #[error("failed to encode an object")]
    Encode(#[from] serde_json::Error),
    /// The system gave no random numbers for a new secret.
    #[error("failed to get random numbers: {0}")]
    Random(getrandom::Error),
}

/// What was applied last: who applies the same again, over an object that nobody touched since, saves the call. Lost at a
/// restart, which costs one more call an object.
#[derive(Debug, Default)]
pub struct Applied {
    last: Mutex<HashMap<Key, Value>>,
}

/// Path of the network and kind of the object.
type Key = (String, &'static str);
/// A hash of what was applied, and the version of the object that came of it.
type Value = (u64, String);

impl Applied {
    /// Forgets a network that is gone.
    pub fn forget(&self, network: &str) {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(of, _), _| of != network);
    }

    fn is_current(&self, key: &Key, hash: u64, version: Option<String>) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        version.is_some_and(|version| last.get(key) == Some(&(hash, version)))
    }

    fn remember(&self, key: Key, hash: u64, version: Option<String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match version {
            Some(version) => last.insert(key, (hash, version)),
            None => last.remove(&key),
        };
    }
}

/// Writes objects of one network.
pub struct Applier<'a> {
    /// Talks to the API server.
    pub client: &'a Client,
    /// Watched copies.
    pub stores: &'a Stores,
    /// The network.
    pub identity: &'a Identity,
    /// What was applied before.
    pub applied: &'a Applied,
}

impl Applier<'_> {
    /// Applies everything that is desired and deletes what no longer is. Returns whether the workload was changed: its pods
    /// follow, which takes time. All else is as desired as soon as it is written.
    ///
    /// # Errors
    /// [`ApplyError::Stalled`] if the API server refuses an object, or one is somebody else's.
    pub async fn apply(&self, desired: &Desired) -> Result<bool, ApplyError> {
        let Desired {
            service,
            disruption_budget,
            workload,
        } = desired;
        // The Service first: the agents look it up as soon as they start. The workload last: it starts them.
        self.one(&self.stores.services, service).await?;
        match disruption_budget {
            Some(budget) => self.one(&self.stores.budgets, budget).await?,
            None => self.prune(&self.stores.budgets).await?,
        };
        Ok(match workload {
            DesiredWorkload::StatefulSet(set) => {
                self.prune(&self.stores.daemon_sets).await?
                    | self.one(&self.stores.stateful_sets, set.as_ref()).await?
            }
            DesiredWorkload::DaemonSet(set) => {
                self.prune(&self.stores.stateful_sets).await?
                    | self.one(&self.stores.daemon_sets, set.as_ref()).await?
            }
        })
    }

    /// Makes the network's Secret of random bytes. If another one came first, that one counts.
    ///
    /// # Errors
    /// [`ApplyError::Stalled`] if a Secret of that name came first that can't be used.
    pub async fn create_secret(&self) -> Result<NetworkSecret, ApplyError> {
        let mut bytes = [0_u8; SECRET_LEN];
        getrandom::fill(&mut bytes).map_err(ApplyError::Random)?;
        let name = self.identity.secret_name();
        let secret = Secret {
            metadata: metadata(self.identity, name.clone()),
            data: Some([(SECRET_KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
            // Nobody can change it by mistake.
            immutable: Some(true),
            type_: Some("peernet.dev/identity".to_owned()),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.identity.namespace);
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let stored = match with_deadline("create the Secret", api.create(&parameters, &secret)).await {
            Ok(stored) => stored,
            Err(error) if error.status().is_some_and(|status| status.is_already_exists()) => {
                with_deadline("get the Secret", api.get(&name)).await?
            }
            Err(error) => return Err(refusal("Secret", &name, error)),
        };
        match secret_state(Some(&stored), self.identity) {
            SecretState::Valid(secret) => Ok(secret),
            SecretState::Leaving => Err(ApplyError::Waiting(format!("an earlier network's Secret {name}"))),
            SecretState::Missing | SecretState::Damaged(_) => Err(ApplyError::Stalled(Stall {
                reason: reason::SECRET_DAMAGED,
                message: format!(
                    "Secret {name} exists and is not one of this operator: rename one of the two"
                ),
            })),
        }
    }

    async fn one<K>(&self, store: &Store<K>, desired: &K) -> Result<bool, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned
            + 'static,
    {
        let kind: &'static str = kind_of::<K>();
        let name = desired.name_any();
        let mut body = serde_json::to_value(desired)?;
        if let Some(body) = body.as_object_mut() {
            // Server-side apply wants to be told what it is given.
            body.insert("apiVersion".to_owned(), K::api_version(&()).into());
            body.insert("kind".to_owned(), kind.into());
        }
        let hash = hash_of(&body);
        let key = (self.identity.path(), kind);
        let seen = owned(store, self.identity);
        if self.applied.is_current(
            &key,
            hash,
            seen.as_ref().and_then(|object| object.resource_version()),
        ) {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.identity.namespace);
        if seen.is_none() {
            // An apply would take over an object that somebody else made under this name.
            let there =
                with_deadline("look for an object of the same name", api.get_metadata_opt(&name)).await?;
            if there
                .as_ref()
                .is_some_and(|there| is_leaving(there, self.identity))
            {
                return Err(ApplyError::Waiting(format!("an earlier network's {kind} {name}")));
            }
            if there.is_some_and(|there| !belongs_to(&there, self.identity)) {
                return Err(ApplyError::Stalled(Stall {
                    reason: reason::NAME_CONFLICT,
                    message: format!(
                        "{kind} {name} exists and does not belong to this network: rename or delete one of the two"
                    ),
                }));
            }
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let stored = with_deadline(
            "apply an object",
            api.patch(&name, &parameters, &Patch::Apply(&body)),
        )
        .await
        .map_err(|error| refusal(kind, &name, error))?;
        let version = stored.resource_version();
        let changed = seen.is_none_or(|seen| revision(seen.as_ref()) != revision(&stored));
        self.applied.remember(key, hash, version);
        Ok(changed)
    }

    async fn prune<K>(&self, store: &Store<K>) -> Result<bool, ApplyError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + 'static,
    {
        let Some(object) = owned(store, self.identity) else {
            return Ok(false);
        };
        if object.meta().deletion_timestamp.is_some() {
            return Ok(false);
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.identity.namespace);
        // The uid makes sure that the object that was looked at is the one that goes.
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: object.uid(),
            resource_version: None,
        });
        match with_deadline("delete an object", api.delete(&object.name_any(), &parameters)).await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .status()
                    .is_some_and(|status| status.is_not_found() || status.is_conflict()) =>
            {
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// An object that the API server finds wrong stays wrong until somebody changes the spec or a policy.
fn refusal(kind: &str, name: &str, error: ApiCallError) -> ApplyError {
    match error.status() {
        Some(status) if namespace_is_ending(status) => ApplyError::Waiting("the namespace".to_owned()),
        Some(status) if status.is_invalid() || status.is_forbidden() || status.code == 400 => {
            ApplyError::Stalled(Stall {
                reason: reason::OBJECT_REFUSED,
                message: format!("the API server refused {kind} {name}: {}", status.message),
            })
        }
        _ => error.into(),
    }
}

/// Tells two states of an object's spec apart. A generation is better, where the kind has one: a version moves with the
/// object's status, too.
fn revision(object: &impl Resource) -> Result<i64, Option<String>> {
    object
        .meta()
        .generation
        .ok_or_else(|| object.meta().resource_version.clone())
}

fn kind_of<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        std::borrow::Cow::Owned(_) => "object",
    }
}

fn hash_of(body: &serde_json::Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.to_string().hash(&mut hasher);
    hasher.finish()
}
