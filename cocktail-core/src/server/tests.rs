//! Every pair of a state and a step of a server.

use super::{IllegalServerStep, ServerState as S, ServerStep as Step};

const STATES: [S; 12] = [
    S::Claimed,
    S::Provisioning,
    S::Booting,
    S::Joined,
    S::Ready,
    S::Cordoned,
    S::Draining,
    S::Terminating,
    S::Gone,
    S::Suspended,
    S::Failed,
    S::Lost,
];

/// Each step with the states from which it leads anywhere, and where it leads to.
const LEGAL: [(Step, &[S], S); 11] = [
    (Step::Provision, &[S::Claimed], S::Provisioning),
    (Step::Accepted, &[S::Provisioning], S::Booting),
    (Step::Joined, &[S::Claimed, S::Provisioning, S::Booting, S::Suspended, S::Lost], S::Joined),
    (Step::Admitted, &[S::Joined], S::Ready),
    (Step::Cordon, &[S::Ready, S::Draining, S::Terminating], S::Cordoned),
    (Step::Uncordon, &[S::Cordoned, S::Draining, S::Terminating], S::Ready),
    (Step::Drain, &[S::Ready, S::Cordoned], S::Draining),
    (Step::Terminate, &[S::Booting, S::Cordoned, S::Draining, S::Failed, S::Lost, S::Terminating], S::Terminating),
    (
        Step::Vanished,
        &[
            S::Claimed,
            S::Provisioning,
            S::Booting,
            S::Joined,
            S::Ready,
            S::Cordoned,
            S::Draining,
            S::Terminating,
            S::Gone,
            S::Failed,
            S::Lost,
        ],
        S::Gone,
    ),
    (Step::Silent, &[S::Joined, S::Ready, S::Cordoned, S::Draining], S::Lost),
    (Step::Fail, &[S::Claimed, S::Provisioning, S::Booting, S::Joined], S::Failed),
];

#[test]
fn each_step_leads_where_the_table_says_and_nowhere_else() {
    for (step, ..) in LEGAL {
        for state in STATES {
            let row = LEGAL.iter().find(|(other, from, _)| *other == step && from.contains(&state));
            let expected = row.map(|(_, _, to)| *to).ok_or(IllegalServerStep { state, step });
            assert_eq!(state.on(step), expected, "{state} on {step:?}");
        }
    }
}

#[test]
fn a_ready_server_is_never_given_back_without_being_emptied() {
    assert!(S::Ready.on(Step::Terminate).is_err());
}
