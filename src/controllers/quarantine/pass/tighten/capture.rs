//! Captures evidence and records it in the status before anything is stopped. No other control waits for it.

use std::pin::pin;
use std::time::Duration;

use super::super::super::{PassError, read, write};
use super::super::PassRun;
use crate::api::quarantine::ControlName;
use crate::api::{Quarantine, QuarantineReason};
use crate::clock;
use crate::isolation::evidence::{Subject, capture, snapshot};
use crate::isolation::pass::Pass;
use crate::isolation::status;
use crate::isolation::target::NextAction;

/// After this time, an unfinished capture is reported in the status.
const REPORT_AFTER: Duration = Duration::from_secs(3);

impl PassRun<'_> {
    /// Captures evidence and writes that to the status. Returns `false` if another writer changed the Quarantine: the target is decided
    /// again, and the capture is not repeated. A failed capture is reported as a failure of the control that it delays.
    ///
    /// # Errors
    /// The status could not be written.
    pub(super) async fn capture_evidence(&mut self, pass: &mut Pass) -> Result<bool, PassError> {
        let context = self.context;
        let quarantine = self.quarantine.clone();
        let before = quarantine.status.as_ref().and_then(|s| s.capture.as_ref()).map(|c| c.digest.as_str());
        let subject = Subject {
            namespace: self.name,
            quarantine: quarantine.metadata.uid.as_deref().unwrap_or_default(),
            before,
            mode: quarantine.spec.capture,
        };
        let evidence = &context.options.evidence;
        let mut kept = pin!(async {
            // Snapshots come first and hold no permit while waiting, so that a slow snapshot delays no other namespace.
            let permit = context.limits.acquire(NextAction::Capture);
            let snapshots = snapshot(&context.client, subject, evidence.snapshot_wait, permit).await?;
            let _permit = context.limits.acquire(NextAction::Capture).await;
            capture(&context.client, evidence, subject, snapshots).await
        });
        let kept = match tokio::time::timeout(REPORT_AFTER, &mut kept).await {
            Ok(kept) => kept,
            // Waiting for a permit and capturing may take minutes. Until then the status reports the controls that hold.
            Err(_) => {
                self.update_in_place(pass);
                self.record(pass).await?;
                kept.await
            }
        };
        match kept {
            Ok(kept) => {
                let captured = Some((pass.target.level, kept.digest.clone()));
                self.context.remember(self.name, |memory| memory.captured = captured);
                pass.capture = Some(kept);
            }
            Err(error) => {
                self.report_failure(
                    pass,
                    ControlName::Workloads,
                    QuarantineReason::CaptureFailed,
                    &error.into(),
                )
                .await;
                return Ok(true);
            }
        }
        pass.in_place.captured = true;
        self.update_in_place(pass);
        let recorded = self.record(pass).await?;
        pass.capture = None;
        Ok(recorded)
    }

    /// Writes the status as observed so far. If another writer changed the Quarantine since it was read, such as a claimant, writes it
    /// over the latest version and returns `false`.
    pub(super) async fn record(&mut self, pass: &Pass) -> Result<bool, PassError> {
        let known = self.context.cluster_state();
        let status = status::after(&self.quarantine, pass, &known, clock::now());
        let conflict = match write(self.context, &self.quarantine, status).await {
            Ok(written) => {
                self.quarantine = written;
                return Ok(true);
            }
            Err(error) if error.is_conflict() => error,
            Err(error) => return Err(error.into()),
        };
        let enforced = |quarantine: &Quarantine| quarantine.status.as_ref().and_then(|s| s.isolation);
        let now = read(self.context, self.name).await?.filter(|now| {
            now.metadata.uid == self.quarantine.metadata.uid
                && now.metadata.deletion_timestamp.is_none()
                && enforced(now) == enforced(&self.quarantine)
        });
        let Some(mut now) = now else { return Err(conflict.into()) };
        // The pass acted on the spec that it read, not on this one.
        now.metadata.generation = self.quarantine.metadata.generation;
        let status = status::after(&now, pass, &known, clock::now());
        self.quarantine = write(self.context, &now, status).await?;
        Ok(false)
    }
}
