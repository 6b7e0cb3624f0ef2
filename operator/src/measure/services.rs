//! How many providers of each service are found.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use peernet_api::report::MAX_SERVICES;

use crate::{clock::Moment, pull::Answer};

/// What an agent found longer ago than this is not known any more. It searches every half minute.
const MAX_AGE: Duration = Duration::from_secs(120);

/// What the member that finds the fewest finds, by service. What nobody has searched for of late is left out.
pub(super) fn found<'a>(answers: impl Iterator<Item = &'a Answer>, now: Moment) -> BTreeMap<String, u32> {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for answer in answers {
        for service in answer.report.services.iter().take(MAX_SERVICES) {
            let (Some(providers), Some(age)) = (service.providers, service.age_millis) else {
                continue;
            };
            let age = Duration::from_millis(age).saturating_add(now.saturating_sub(answer.asked));
            if age > MAX_AGE {
                continue;
            }
            match found.entry(service.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(providers);
                }
                Entry::Occupied(mut entry) => {
                    let fewest = providers.min(*entry.get());
                    entry.insert(fewest);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use peernet_api::report::{Report, ServiceReport};

    use super::*;
    use crate::reports::tests::report;

    const NOW: Moment = Duration::from_secs(1_000);

    fn says(providers: Option<u32>, age: Option<Duration>) -> Answer {
        let service = ServiceReport {
            name: "web".to_owned(),
            providers,
            age_millis: age.map(|age| age.as_millis() as u64),
        };
        Answer {
            report: Report {
                services: vec![service],
                ..report("mesh-0")
            },
            asked: NOW,
            received: NOW,
        }
    }

    fn providers(answers: &[Answer]) -> Option<u32> {
        found(answers.iter(), NOW).get("web").copied()
    }

    #[test]
    fn who_finds_the_fewest_says_what_everybody_finds() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(
            providers(&[says(Some(3), second), says(Some(2), second)]),
            Some(2)
        );
        assert_eq!(
            providers(&[says(Some(3), second), says(Some(0), second)]),
            Some(0)
        );
    }

    #[test]
    fn what_is_old_or_was_never_searched_for_is_not_known() {
        let (new, old) = (Some(MAX_AGE), Some(MAX_AGE + Duration::from_millis(1)));
        assert_eq!(providers(&[says(Some(3), new), says(Some(1), old)]), Some(3));
        assert_eq!(providers(&[says(Some(1), old)]), None);
        assert_eq!(providers(&[says(None, None)]), None);
        let mut late = says(Some(3), new);
        late.asked = NOW - Duration::from_secs(5);
        assert_eq!(providers(&[late]), None);
    }
}
