//! What this agent keeps of the network's records and providers. Everything has a bound; what exceeds it is refused, and
//! never takes the place of what others stored.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map},
    iter,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId,
    kad::{
        KBucketKey, ProviderRecord, Record, RecordKey,
        store::{Error, RecordStore, Result as StoreResult},
    },
};
use rand::seq::SliceRandom;

use super::{PROVIDER_TTL, RECORD_TTL};

/// Bounds on what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes of all keys and values of records.
    pub bytes: usize,
    /// Bytes of one key.
    pub key_bytes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
    /// Keys that somebody provides.
    pub provider_keys: usize,
    /// Providers of one key.
    pub providers_per_key: usize,
    /// Providers of all keys.
    pub providers: usize,
    /// Addresses kept of one provider.
    pub addresses: usize,
    /// Keys that this agent itself provides.
    pub provided: usize,
}

impl Limits {
    /// What an agent keeps. With everything full, records take some 8 MiB and providers some 3 MiB, of the 64 MiB that
    /// a pod has by default.
    pub const DEFAULT: Self = Self {
        records: 1024,
        bytes: 8 << 20,
        key_bytes: 256,
        value_bytes: 64 << 10,
        provider_keys: 1024,
        providers_per_key: 512,
        providers: 8192,
        addresses: 4,
        provided: 64,
    };
}

/// Longest address of a provider that is kept, in bytes.
const MAX_ADDRESS_BYTES: usize = 128;

/// Why a record is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key has no bytes, or too many.
    #[error("a key has 1 to {limit} bytes, this one {bytes}")]
    KeyLength {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The value has too many bytes.
    #[error("a value has at most {limit} bytes, this one {bytes}")]
    ValueTooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// There are as many records as there may be.
    #[error("the store is full: it holds {0} records")]
    Records(usize),
    /// There is no room for so many bytes.
    #[error("the store is full: it holds {0} bytes")]
    Bytes(usize),
    /// One publisher may fill half of the store and no more.
    #[error("this publisher's records fill half of the store")]
    Share,
    /// Its time is over.
    #[error("the record has expired")]
    Expired,
    /// A value that was put later is there.
    #[error("a newer value of this key is stored")]
    Older,
}

/// One record, with what the upkeep needs of it.
#[derive(Clone, Debug)]
pub struct Stored {
    record: Record,
    /// Where it is in Kademlia's space.
    place: KBucketKey<RecordKey>,
    expires: Instant,
    /// When it last came from somebody, or was brought to those who should have it.
    refreshed: Instant,
}

impl Stored {
    /// The record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where it is in Kademlia's space.
    #[must_use]
    pub fn place(&self) -> &KBucketKey<RecordKey> {
        &self.place
    }

    /// When it last came from somebody, or was brought to those who should have it.
    #[must_use]
    pub fn refreshed(&self) -> Instant {
        self.refreshed
    }

    fn bytes(&self) -> usize {
        bytes(&self.record)
    }
}

/// How much of the store one publisher's records take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    records: usize,
    bytes: usize,
}

/// The records and providers that this agent keeps for the network, and what it provides itself.
#[derive(Debug)]
pub struct Store {
    own_id: PeerId,
    limits: Limits,
    records: HashMap<RecordKey, Stored>,
    bytes: usize,
    /// As many as there are records, at most.
    shares: HashMap<Option<PeerId>, Share>,
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    provider_count: usize,
    provided: HashMap<RecordKey, ProviderRecord>,
}

impl Store {
    /// An empty store of the agent with this id.
    #[must_use]
    pub fn new(own_id: PeerId, limits: Limits) -> Self {
        Self {
            own_id,
            limits,
            records: HashMap::new(),
            bytes: 0,
            shares: HashMap::new(),
            providers: HashMap::new(),
            provider_count: 0,
            provided: HashMap::new(),
        }
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of providers of all keys, this agent among them.
    #[must_use]
    pub fn provider_count(&self) -> usize {
        self.provider_count
    }

    /// All records, with what the upkeep needs of them.
    pub fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.records.values()
    }

    /// The keys that this agent provides.
    pub fn provided_keys(&self) -> impl Iterator<Item = &RecordKey> {
        self.provided.keys()
    }

    /// Whether this agent provides a key.
    #[must_use]
    pub fn provides(&self, key: &RecordKey) -> bool {
        self.provided.contains_key(key)
    }

    /// Notes that a record was brought to those who should have it.
    pub fn refreshed(&mut self, key: &RecordKey, now: Instant) {
        if let Some(stored) = self.records.get_mut(key) {
            stored.refreshed = now;
        }
    }

    /// Whether a record would be stored, and if not, why.
    ///
    /// # Errors
    /// If it would not.
    pub fn check(&self, record: &Record, now: Instant) -> Result<(), Refusal> {
        let limits = &self.limits;
        let (key, value) = (record.key.as_ref().len(), record.value.len());
        if key == 0 || key > limits.key_bytes {
            return Err(Refusal::KeyLength {
                bytes: key,
                limit: limits.key_bytes,
            });
        }
        if value > limits.value_bytes {
            return Err(Refusal::ValueTooLarge {
                bytes: value,
                limit: limits.value_bytes,
            });
        }
        let expires = expiry(record, now);
        if expires <= now {
            return Err(Refusal::Expired);
        }
        let known = self.records.get(&record.key);
        if known.is_some_and(|known| {
            now < known.expires && expires < known.expires && known.record.value != record.value
        }) {
            return Err(Refusal::Older);
        }
        let replaced = known.map_or(0, Stored::bytes);
        if known.is_none() && self.records.len() >= limits.records {
            return Err(Refusal::Records(self.records.len()));
        }
        if self.bytes - replaced + bytes(record) > limits.bytes {
            return Err(Refusal::Bytes(self.bytes));
        }
        let mut share = self.shares.get(&record.publisher).copied().unwrap_or_default();
        if let Some(known) = known.filter(|known| known.record.publisher == record.publisher) {
            share.records -= 1;
            share.bytes -= known.bytes();
        }
        if share.records + 1 > limits.records.div_ceil(2)
            || share.bytes + bytes(record) > limits.bytes.div_ceil(2)
        {
            return Err(Refusal::Share);
        }
        Ok(())
    }

    /// Stores a record.
    ///
    /// # Errors
    /// As [`Store::check`].
    pub fn insert(&mut self, mut record: Record, now: Instant) -> Result<(), Refusal> {
        if self.check(&record, now).is_err() {
            // What has expired must not keep others out.
            self.sweep(now);
            self.check(&record, now)?;
        }
        let known = self.take(&record.key);
        let mut expires = expiry(&record, now);
        if let Some(known) = known.filter(|known| known.record.value == record.value) {
            expires = expires.max(known.expires);
        }
        record.expires = Some(expires);
        let share = self.shares.entry(record.publisher).or_default();
        share.records += 1;
        share.bytes += bytes(&record);
        self.bytes += bytes(&record);
        let stored = Stored {
            place: KBucketKey::new(record.key.clone()),
            expires,
            refreshed: now,
            record,
        };
        self.records.insert(stored.record.key.clone(), stored);
        Ok(())
    }

    /// Forgets what has expired.
    pub fn sweep(&mut self, now: Instant) {
        let expired: Vec<RecordKey> = self
            .records
            .values()
            .filter(|stored| stored.expires <= now)
            .map(|stored| stored.record.key.clone())
            .collect();
        for key in expired {
            self.take(&key);
        }
        self.providers.retain(|_, providers| {
            providers.retain(|provider| !provider.is_expired(now));
            !providers.is_empty()
        });
        self.provider_count = self.providers.values().map(Vec::len).sum();
    }

    fn take(&mut self, key: &RecordKey) -> Option<Stored> {
        let stored = self.records.remove(key)?;
        self.bytes -= stored.bytes();
        if let hash_map::Entry::Occupied(mut share) = self.shares.entry(stored.record.publisher) {
            share.get_mut().records -= 1;
            share.get_mut().bytes -= stored.bytes();
            if share.get().records == 0 {
                share.remove();
            }
        }
        Some(stored)
    }

    /// Stores a provider of a key.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn insert_provider(&mut self, mut provider: ProviderRecord, now: Instant) -> StoreResult<()> {
        let limits = self.limits;
        let own = provider.provider == self.own_id;
        let key = provider.key.as_ref().len();
        if key == 0 || key > limits.key_bytes {
            return Err(Error::ValueTooLarge);
        }
        if own && !self.provided.contains_key(&provider.key) && self.provided.len() >= limits.provided {
            return Err(Error::MaxProvidedKeys);
        }
        if !own {
            let latest = now + PROVIDER_TTL;
            provider.expires = Some(provider.expires.map_or(latest, |expires| expires.min(latest)));
        }
        provider
            .addresses
            .retain(|address| address.len() <= MAX_ADDRESS_BYTES);
        provider.addresses.truncate(limits.addresses);
        if !self.has_provider(&provider) && !self.has_room_for(&provider.key) {
            self.sweep(now);
            if !self.has_room_for(&provider.key) {
                return Err(Error::MaxProvidedKeys);
            }
        }
        if own {
            self.provided.insert(provider.key.clone(), provider.clone());
        }
        let known = self.providers.entry(provider.key.clone()).or_default();
        match known.iter_mut().find(|known| known.provider == provider.provider) {
            Some(known) => *known = provider,
            None => {
                known.push(provider);
                self.provider_count += 1;
            }
        }
        Ok(())
    }

    fn has_provider(&self, provider: &ProviderRecord) -> bool {
        self.providers
            .get(&provider.key)
            .is_some_and(|known| known.contains(provider))
    }

    fn has_room_for(&self, key: &RecordKey) -> bool {
        let of_key = self.providers.get(key).map(Vec::len);
        self.provider_count < self.limits.providers
            && of_key.map_or(self.providers.len() < self.limits.provider_keys, |number| {
                number < self.limits.providers_per_key
            })
    }
}

/// When a record expires: no later than if it were put now.
fn expiry(record: &Record, now: Instant) -> Instant {
    let latest = now + RECORD_TTL;
    record.expires.map_or(latest, |expires| expires.min(latest))
}

fn bytes(record: &Record) -> usize {
    record.key.as_ref().len() + record.value.len()
}

/// When a record that is put now expires. A second early: Kademlia's messages have whole seconds and cut the rest off, so
/// that our own copy would look newer than what others put within the next second.
#[must_use]
pub fn new_expiry(now: Instant) -> Instant {
    now + RECORD_TTL - Duration::from_secs(1)
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Records(_) | Refusal::Bytes(_) | Refusal::Share => Self::MaxRecords,
            Refusal::KeyLength { .. } | Refusal::ValueTooLarge { .. } | Refusal::Expired | Refusal::Older => {
                Self::ValueTooLarge
            }
        }
    }
}

impl RecordStore for Store {
    type RecordsIter<'a> =
        iter::Map<hash_map::Values<'a, RecordKey, Stored>, fn(&'a Stored) -> Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Map<
        hash_map::Values<'a, RecordKey, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.records.get(key).map(|stored| Cow::Borrowed(&stored.record))
    }

    fn put(&mut self, record: Record) -> StoreResult<()> {
        Ok(self.insert(record, Instant::now())?)
    }

    fn remove(&mut self, key: &RecordKey) {
        self.take(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        self.records.values().map(|stored| Cow::Borrowed(&stored.record))
    }

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        self.insert_provider(record, Instant::now())
    }

    /// In an order of its own each time: Kademlia answers with the first twenty, and who asks again finds the others.
    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let mut providers = self.providers.get(key).cloned().unwrap_or_default();
        providers.shuffle(&mut rand::rng());
        providers
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.provided.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.own_id {
            self.provided.remove(key);
        }
        if let hash_map::Entry::Occupied(mut known) = self.providers.entry(key.clone()) {
            let before = known.get().len();
            known.get_mut().retain(|known| known.provider != *provider);
            self.provider_count -= before - known.get().len();
            if known.get().is_empty() {
                known.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests;
