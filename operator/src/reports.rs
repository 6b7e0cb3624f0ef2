//! Judging what came back from an agent. Pure.

use std::time::Duration;

use peernet_api::{
    envelope::{self, OpenError},
    report::Report,
    v1alpha1::ReportOutcome,
};

use crate::{clock::Moment, pull::Pulled};

/// An agent whose event loop gave no sign of life for this long has stopped measuring, even if it still answers.
const MAX_HEARTBEAT_AGE_MILLIS: u64 = 10_000;
/// A report that was asked for longer ago than this is old. A round's deadlines add up to less, so that it takes an operator
/// that was stopped in between.
const MAX_ANSWER_AGE: Duration = Duration::from_secs(15);

/// What a report must match to be believed.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The peer that must have signed it.
    pub peer_id: &'a str,
    /// The network that it must be about, as `namespace/name`.
    pub network: &'a str,
    /// The member that it must be from.
    pub name: &'a str,
    /// The nonce of the request.
    pub nonce: &'a str,
}

/// Accepts a report, or says why not.
///
/// # Errors
/// The outcome to count and to show. Nothing of such a report gets into any number.
pub fn judge(bytes: &[u8], expected: Expected<'_>) -> Result<Report, ReportOutcome> {
    let (report, signer) = envelope::open(bytes).map_err(|error| match error {
        OpenError::TooLarge => ReportOutcome::TooLarge,
        OpenError::Undecodable(_) | OpenError::UnknownVersion(_) => ReportOutcome::Undecodable,
        OpenError::WrongSignature => ReportOutcome::WrongSignature,
    })?;
    if signer.to_string() != expected.peer_id
        || report.network != expected.network
        || report.name != expected.name
    {
        return Err(ReportOutcome::WrongPeer);
    }
    if report.nonce != expected.nonce || report.heartbeat_age_millis > MAX_HEARTBEAT_AGE_MILLIS {
        return Err(ReportOutcome::Stale);
    }
    Ok(report)
}

/// Refuses what has become old since it was asked for: an answer waits in the socket for as long as the operator is stopped.
pub fn expire(pulled: &mut [Pulled], now: Moment) {
    for pulled in pulled {
        if let Ok(answer) = pulled
            && now.saturating_sub(answer.asked) > MAX_ANSWER_AGE
        {
            *pulled = Err(ReportOutcome::Stale);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use peernet_api::{
        envelope::seal,
        identity::NetworkSecret,
        report::{MAX_BYTES, VERSION},
        transport::Transport,
    };

    use super::*;
    use crate::pull::Answer;

    /// A report that was asked for and came a moment ago, `now` being 100 s.
    pub(crate) fn answer(report: Report) -> Answer {
        Answer {
            report,
            asked: Duration::from_millis(99_990),
            received: Duration::from_millis(99_995),
        }
    }

    /// A report that a member of the network `lab/mesh` gives if it knows nobody.
    pub(crate) fn report(name: &str) -> Report {
        Report {
            version: VERSION,
            nonce: "aa".into(),
            network: "lab/mesh".into(),
            name: name.into(),
            agent_version: "0".into(),
            uptime_millis: 600_000,
            window_millis: 300_000,
            heartbeat_age_millis: 5,
            events_dropped: 0,
            transports: vec![Transport::Tcp],
            ..Report::default()
        }
    }

    fn judged(report: &Report, signer: &str) -> Result<Report, ReportOutcome> {
        let secret = NetworkSecret::new(&[5; 32]).unwrap();
        let peer_id = secret.peer_id("mesh-0").to_string();
        let expected = Expected {
            peer_id: &peer_id,
            network: "lab/mesh",
            name: "mesh-0",
            nonce: "aa",
        };
        judge(&seal(report, &secret.keypair(signer)).unwrap(), expected)
    }

    #[test]
    fn what_a_member_says_of_itself_is_believed() {
        assert_eq!(judged(&report("mesh-0"), "mesh-0"), Ok(report("mesh-0")));
    }

    #[test]
    fn nobody_speaks_for_another() {
        assert_eq!(judged(&report("mesh-0"), "mesh-1"), Err(ReportOutcome::WrongPeer));
        assert_eq!(judged(&report("mesh-1"), "mesh-0"), Err(ReportOutcome::WrongPeer));
        let foreign = Report {
            network: "other/mesh".into(),
            ..report("mesh-0")
        };
        assert_eq!(judged(&foreign, "mesh-0"), Err(ReportOutcome::WrongPeer));
    }

    #[test]
    fn a_replay_and_a_stuck_agent_are_stale() {
        let replay = Report {
            nonce: "bb".into(),
            ..report("mesh-0")
        };
        assert_eq!(judged(&replay, "mesh-0"), Err(ReportOutcome::Stale));
        let stuck = Report {
            heartbeat_age_millis: 10_001,
            ..report("mesh-0")
        };
        assert_eq!(judged(&stuck, "mesh-0"), Err(ReportOutcome::Stale));
    }

    #[test]
    fn what_waited_for_a_stopped_operator_is_stale() {
        let mut pulled = [Ok(answer(report("mesh-0"))), Err(ReportOutcome::TimedOut)];
        expire(&mut pulled, Duration::from_millis(114_990));
        assert!(pulled[0].is_ok());
        expire(&mut pulled, Duration::from_millis(114_991));
        assert_eq!(pulled, [Err(ReportOutcome::Stale), Err(ReportOutcome::TimedOut)]);
    }

    #[test]
    fn what_is_no_report_is_named() {
        let expected = Expected {
            peer_id: "",
            network: "",
            name: "",
            nonce: "",
        };
        assert_eq!(judge(b"<html>", expected), Err(ReportOutcome::Undecodable));
        assert_eq!(
            judge(&vec![0; MAX_BYTES + 1], expected),
            Err(ReportOutcome::TooLarge)
        );
        let secret = NetworkSecret::new(&[5; 32]).unwrap();
        let mut sealed = seal(&report("mesh-0"), &secret.keypair("mesh-0")).unwrap();
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert_eq!(judge(&sealed, expected), Err(ReportOutcome::WrongSignature));
        let newer = Report {
            version: VERSION + 1,
            ..report("mesh-0")
        };
        assert_eq!(judged(&newer, "mesh-0"), Err(ReportOutcome::Undecodable));
    }
}
