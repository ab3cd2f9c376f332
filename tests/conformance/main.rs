//! The simulated Kubernetes of `crates/world` beside the real control plane of `tests/control-plane`: the same requests, the
//! same answers. `tests/conformance/run` runs both halves.
//!
//! ```text
//!                   ┌─► simulated: a service in this process, virtual time ──► transcript ──┐
//!  cases: requests ─┤                                                                       ├─► the same as recorded/CASE.json
//!                   └─► real: kube-apiserver, controllers, scheduler ────────► transcript ──┘
//! ```
//!
//! A transcript names what no two servers have in common (uids, versions, instants) by its order. What is not compared stands in
//! [`transcript::DIFFERENCES`], each with its reason. Neither side has a kubelet: what kubelets write is written from their
//! sources and tested in `crates/world`.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "these tests measure time, real or virtual, and are told by the environment to record"
)]

mod cases;
mod control_plane;
mod in_process;
mod patches;
mod server;
mod transcript;

/// Each case twice: against the simulation always, against the real one by `tests/conformance/run`.
macro_rules! both {
    ($($case:ident: $module:ident),* $(,)?) => {
        mod simulated {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                let mut transcript = crate::transcript::Transcript::default();
                let server = crate::server::simulated(&mut transcript);
                crate::cases::$module::$case(&server, &mut transcript).await;
                transcript.compare(stringify!($case));
                server.knew_everything();
            })*
        }

        mod real {
            $(#[tokio::test(flavor = "multi_thread")]
            #[ignore = "needs the control plane: tests/conformance/run"]
            async fn $case() {
                let mut transcript = crate::transcript::Transcript::default();
                let server = crate::server::real(stringify!($case), &mut transcript).await;
                crate::cases::$module::$case(&server, &mut transcript).await;
                transcript.record_if_told(stringify!($case));
                transcript.compare(stringify!($case));
            })*
        }
    };
}

both! {
    deployments_are_created_read_and_deleted: objects,
    scale_is_tested_patched_and_owned: scale,
    a_pool_s_status_and_spec_do_not_touch_each_other: pools,
    updates_that_are_late_conflict_and_those_that_change_nothing_are_none: pools,
    hints_are_created_once_counted_and_deleted: hints,
    hints_of_one_moment_are_deleted_together: hints,
    the_controller_deletes_many_hints_and_exactly_those: hints,
    lists_come_by_pages_of_one_moment: lists,
    watches_tell_what_happened_in_order: watches,
    a_watch_is_bookmarked_and_ends: watches,
    a_watch_from_too_long_ago_is_told_so: watches,
    a_lease_is_taken_renewed_contended_and_given_back: leases,
    events_are_created_and_counted_up: objects,
    secrets_are_read_as_written: objects,
    the_schema_and_the_views_of_the_controller_agree: controller,
    the_controller_s_own_writes_are_answered: controller,
    a_deployment_runs_its_course: deployments,
    a_new_size_is_observed_before_it_is_counted: deployments,
    a_pod_without_a_node_goes_first: deployments,
    victims_go_in_order: deployments,
    victims_of_one_cost_go_by_age_and_restarts: deployments,
    pods_are_deleted_with_grace: deployments,
    what_is_owned_goes_with_its_owner: deployments,
}
