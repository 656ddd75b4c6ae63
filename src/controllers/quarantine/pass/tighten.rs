//! Tightens isolation control by control: lists, network, label, fence verification, evidence, workloads and pods, identity. A control
//! that fails is reported, and the next ones proceed.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::super::super::metrics::Controller;
use super::super::PassError;
use super::{PassRun, SealMark};
use crate::api::conditions::{STALLED, find};
use crate::api::quarantine::{CaptureMode, ControlName};
use crate::api::{ISOLATION_LABEL, Isolation, QuarantineReason};
use crate::calls::{call_opt, list_all};
use crate::isolation::controls::quota;
use crate::isolation::failure::{Culprit, culprit, explain, is_quota_exceeded};
use crate::isolation::label;
use crate::isolation::list::Listed;
use crate::isolation::network::{Before, Written};
use crate::isolation::pass::{ControlFailure, Pass, STALLED_AFTER};
use crate::isolation::preflight::configuration_of;
use crate::isolation::probe;
use crate::isolation::retry::control_again_after;
use crate::isolation::target::{self, NextAction};

mod capture;
mod stop;

/// How long a pass probes the fence before it goes on without a successful verification.
const VERIFYING: Duration = Duration::from_secs(1);
/// Attempts to label a namespace that other writers change.
const ATTEMPTS: u32 = 5;
/// Page size of lists of webhook configurations.
const PAGE: u32 = 100;

impl PassRun<'_> {
    /// Enforces every control as far as possible.
    ///
    /// # Errors
    /// Another writer changed the Quarantine, or its status cannot be written.
    pub(super) async fn tighten(&mut self, pass: &mut Pass) -> Result<Action, PassError> {
        let was_labelled = self.read_namespace().await;
        // No permit is needed here: all namespaces that are to be listed share one write, which does not wait for any label, fence or
        // network.
        let was_listed = self.put_on_lists(pass).await;
        let written = {
            let _permit = self.context.limits.acquire(NextAction::Network).await;
            if !self.observation.is_fenced_off() {
                // No list fences the namespace, so the label has to, before the network is cut.
                self.write_label(pass).await;
            }
            self.cut_network(pass).await
        };
        if self.pending_cut.take().is_some() {
            self.context.limits.wait_for_cuts().await;
        }
        // Without label and list, workloads may have started since the last capture.
        pass.in_place.captured = (was_labelled || was_listed) && self.is_captured(pass.target.level);
        {
            let _permit = self.context.limits.acquire(NextAction::Label).await;
            self.write_label(pass).await;
            self.verify_fence(pass).await;
        }
        self.read_back_network(pass, written).await;
        // Sealing reads it live.
        pass.contents = super::confirm::contents_cached(self.context, self.name);
        if !pass.in_place.captured && !self.capture_evidence(pass).await? {
            return Ok(Action::requeue(Duration::ZERO));
        }
        let may_stop = pass.in_place.captured || self.quarantine.spec.capture == CaptureMode::BestEffort;
        if pass.target.level == Isolation::Sealed && may_stop {
            let _permit = self.context.limits.acquire(NextAction::Stop).await;
            self.stop_workloads(pass).await;
            self.end_pods(pass).await;
            self.recreate_accounts(pass).await;
        }
        self.update_in_place(pass);
        self.context.remember(self.name, |memory| {
            memory.failing.retain(|control, _| pass.failures.contains_key(control));
        });
        Ok(self.next_pass(pass))
    }

    /// Reads the namespace live. Returns whether it had the isolation label, which determines whether anything may have run since the
    /// last capture. If it cannot be read, the cached label counts for that alone: capturing again would replace evidence of what has been
    /// stopped since. Everything else goes on as if the label were missing.
    async fn read_namespace(&mut self) -> bool {
        let namespaces: Api<Namespace> = Api::all(self.context.client.clone());
        let read = call_opt(format!("get namespace {}", self.name), namespaces.get(self.name)).await;
        let was_cached = self.namespace.labels().contains_key(ISOLATION_LABEL);
        let is_unread = read.is_err();
        self.was_labelled = match read {
            Ok(Some(now)) => {
                self.namespace = now;
                self.namespace.labels().contains_key(ISOLATION_LABEL)
            }
            Ok(None) | Err(_) => false,
        };
        self.was_labelled || (is_unread && was_cached)
    }

    /// Returns whether evidence of this sealing is captured. The status records that once the level is enforced; until then this process
    /// remembers it, so that a failing control does not cause another capture.
    pub(super) fn is_captured(&self, level: Isolation) -> bool {
        let capture = self.quarantine.status.as_ref().and_then(|status| status.capture.as_ref());
        let digest = capture.map(|capture| capture.digest.clone());
        let remembered = self.context.remember(self.name, |memory| memory.captured.clone());
        let is_recorded = !target::needs_capture(&self.quarantine, level);
        match remembered.filter(|(_, of)| Some(of) == digest.as_ref()) {
            // A first sealing that was captured at Contained is captured again at Sealed: its pods have run since.
            Some((at, _)) => at == level || (is_recorded && self.before.is_some()),
            None => is_recorded,
        }
    }

    /// Updates the pass from what was read back, and marks stalled controls, for a status that may be written midway.
    pub(super) fn update_in_place(&self, pass: &mut Pass) {
        self.mark_stalled(pass);
        let (fenced, captured) = (pass.in_place.fenced, pass.in_place.captured);
        pass.in_place = self.observation.in_place(
            &self.quarantine.spec,
            pass.target.level,
            &self.mark(),
            fenced,
            captured,
        );
        pass.fenced_off = self.observation.is_fenced_off();
    }

    /// Returns the mark of this sealing.
    fn mark(&self) -> SealMark {
        SealMark::of(&self.quarantine)
    }

    /// Reports a failed control. Raises a quota if that is the cause.
    pub(super) async fn report_failure(
        &mut self,
        pass: &mut Pass,
        control: ControlName,
        reason: QuarantineReason,
        error: &PassError,
    ) {
        if error.is_conflict() {
            // Another writer was faster; the next pass reads again at once.
            self.wake_within(Duration::from_millis(20));
            return;
        }
        let culprit = culprit(error.io().and_then(|error| error.status()));
        let configuration = match &culprit {
            Culprit::Webhook(name) => self.configuration_of(name, &error.to_string()).await,
            _ => None,
        };
        if error.io().and_then(|error| error.status()).is_some_and(is_quota_exceeded) {
            self.raise_quotas().await;
        }
        self.context.options.process.metrics.failed(Controller::Quarantine, reason.as_str());
        tracing::warn!(?control, %reason, %error, "control not enforced; will retry");
        let message = explain(error, &culprit, configuration.as_deref());
        let failure = ControlFailure { reason, message, stalled: false };
        pass.failures.entry(control).and_modify(|first| first.add(&failure)).or_insert(failure);
    }

    async fn raise_quotas(&mut self) {
        match quota::raise(&self.context.client, self.name).await {
            Ok(raised) if raised.is_empty() => {}
            Ok(raised) => self.drift.push(format!("ResourceQuota {}", raised.join(", "))),
            Err(error) => tracing::warn!(%error, "quota not raised; will retry"),
        }
        // The quota controller has to recompute its usage first.
        self.wake_within(Duration::from_millis(500));
    }

    /// Returns kind and name of the configuration that contains a webhook: of those with a webhook of this name, the one that intercepts
    /// writes to this namespace. `answer`: error text of the API server.
    async fn configuration_of(&self, webhook: &str, answer: &str) -> Option<String> {
        let client = &self.context.client;
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        let (validating, mutating) = futures::join!(
            list_all("list ValidatingWebhookConfigurations", &validating, ListParams::default(), PAGE),
            list_all("list MutatingWebhookConfigurations", &mutating, ListParams::default(), PAGE)
        );
        let validating = validating.unwrap_or_default();
        let mutating = mutating.unwrap_or_default();
        let (name, labels) = (self.name, self.namespace.labels());
        configuration_of(webhook, answer, (&validating, &mutating), name, labels)
    }

    /// Adds the namespace to the isolation lists, which fence with one write and pass no webhook. Returns whether the namespace was
    /// listed before.
    async fn put_on_lists(&mut self, pass: &mut Pass) -> bool {
        let (lists, level) = (&self.context.lists, pass.target.level);
        let mut listed = lists.of(self.name).await;
        let was_listed = listed.as_ref().is_ok_and(Listed::isolates);
        let mut written = Ok(());
        if !listed.as_ref().is_ok_and(|listed| listed.is_at(level)) {
            written = lists.set(self.name, level).await;
            listed = lists.of(self.name).await;
            self.drift.push("isolation lists".to_owned());
        }
        let unread = listed.as_ref().err().cloned();
        self.observation.listed = listed.ok();
        for error in written.err().into_iter().chain(unread) {
            self.report_failure(pass, ControlName::Guard, QuarantineReason::ListFailed, &error.into()).await;
        }
        was_listed
    }

    async fn write_label(&mut self, pass: &mut Pass) {
        let (client, level) = (self.context.client.clone(), pass.target.level);
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let spec = self.quarantine.spec.clone();
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            if label::is_labelled(&self.namespace, &spec, level) {
                failed = None;
                break;
            }
            match label::label(&client, &self.namespace, &spec, level, false).await {
                Ok(written) => {
                    self.namespace = written;
                    self.drift.push(format!("label and annotations of namespace {}", self.name));
                }
                Err(error) => {
                    let is_conflict = error.is_conflict();
                    failed = Some(error);
                    if !is_conflict {
                        break;
                    }
                    let what = format!("get namespace {}", self.name);
                    if let Ok(Some(now)) = call_opt(what, namespaces.get(self.name)).await {
                        self.namespace = now;
                    }
                }
            }
        }
        self.observation.namespace = Some(self.namespace.clone());
        if let Some(error) = failed {
            self.report_failure(pass, ControlName::Lock, QuarantineReason::LabelFailed, &error.into()).await;
        }
    }

    /// Probes the fence until it refuses, for at most [`VERIFYING`]: the pass goes on without a verification.
    async fn verify_fence(&mut self, pass: &mut Pass) {
        let scope = self.verification_scope(pass.target.level);
        let held = self.verified(&scope);
        pass.tried = held.as_ref().map(|held| held.at);
        let fenced_off = self.observation.is_fenced_off();
        pass.in_place.fenced = fenced_off && self.still_holds(pass, pass.target.level);
        if pass.in_place.fenced {
            pass.probed = held.map(|held| held.probed);
            return;
        }
        if !fenced_off {
            return;
        }
        let began = Instant::now();
        let mut pause = Duration::from_millis(5);
        // After a failed verification, each pass probes only once, so as not to delay the next controls.
        let has_failed_before = self.context.remember(self.name, |memory| memory.failed_probes.is_some());
        loop {
            let is_last = has_failed_before || began.elapsed() > VERIFYING;
            // A quick probe suffices while even a pod is admitted. The last attempt probes everything, for the report.
            let is_open = !is_last && probe::is_open(&self.context.servers, self.name).await.is_ok();
            if !is_open && self.try_fence(pass, &scope).await {
                return;
            }
            if is_last {
                let again = self.fence_not_verified(pass);
                self.wake_within(again);
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    async fn cut_network(&mut self, pass: &mut Pass) -> Option<Written> {
        match self.write_policies(None).await {
            Ok(written) => Some(written),
            Err(error) => {
                self.report_failure(
                    pass,
                    ControlName::Network,
                    QuarantineReason::NetworkFailed,
                    &error.into(),
                )
                .await;
                None
            }
        }
    }

    /// Reads back the network once nobody can add policies.
    async fn read_back_network(&mut self, pass: &mut Pass, written: Option<Written>) {
        // Policies read before the fence was verified may have changed since.
        let stood = self.fenced_before() == Before::Isolated && pass.in_place.fenced;
        if let Err(error) = self.observe_network(pass, None, written.filter(|_| stood)).await {
            self.report_failure(pass, ControlName::Network, QuarantineReason::NetworkFailed, &error).await;
        }
    }

    /// Marks controls as stalled that have failed for [`STALLED_AFTER`].
    fn mark_stalled(&self, pass: &mut Pass) {
        let status = self.quarantine.status.as_ref();
        let stalled = status.and_then(|status| find(&status.conditions, STALLED)).map(|c| c.reason.clone());
        self.context.remember(self.name, |memory| {
            for (control, failure) in &mut pass.failures {
                // After a restart of the operator, a control that the status reports as stalled is still stalled.
                let had_stalled = !memory.failing.contains_key(control)
                    && stalled.as_deref() == Some(failure.reason.as_str());
                let now = Instant::now();
                let began = if had_stalled { now.checked_sub(STALLED_AFTER) } else { None };
                let since = *memory.failing.entry(*control).or_insert(began.unwrap_or(now));
                failure.stalled = had_stalled || since.elapsed() >= STALLED_AFTER;
            }
        });
    }

    /// Returns when the next pass is due: soon after a failed control, else when controls are verified again.
    fn next_pass(&mut self, pass: &Pass) -> Action {
        if !pass.failures.is_empty() {
            let failures = self.context.remember(self.name, |memory| {
                memory.failures = memory.failures.saturating_add(1);
                memory.failures
            });
            self.wake_within(control_again_after(failures));
        }
        match self.next_wake {
            Some(again) => Action::requeue(again),
            None => self.requeue_idle(pass),
        }
    }
}
