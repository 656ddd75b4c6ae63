//! Evidence, kept and on the record before anything is stopped. It delays nothing else.

use std::pin::pin;
use std::time::Duration;

use super::super::super::{PassError, read, write};
use super::super::Work;
use crate::api::quarantine::ControlName;
use crate::api::{Quarantine, QuarantineReason};
use crate::clock;
use crate::isolation::evidence::{Subject, capture, snapshot};
use crate::isolation::pass::Pass;
use crate::isolation::status;
use crate::isolation::target::NextAction;

/// A capture that is not done after this is reported.
const REPORT_AFTER: Duration = Duration::from_secs(3);

impl Work<'_> {
    /// Keeps evidence, and writes that it is kept. Returns `false` where somebody wrote to the Quarantine meanwhile: what is wanted of
    /// it is asked anew, and what is kept is not taken again. Evidence that could not be kept is a failure of what it delays.
    ///
    /// # Errors
    /// The status could not be written.
    pub(super) async fn keep_evidence(&mut self, pass: &mut Pass) -> Result<bool, PassError> {
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
            // First, and waited for without a turn: a snapshot that does not come holds up nobody else.
            let turn = context.turns.take(NextAction::Capture);
            let snapshots = snapshot(&context.client, subject, evidence.snapshot_wait, turn).await?;
            let _turn = context.turns.take(NextAction::Capture).await;
            capture(&context.client, evidence, subject, snapshots).await
        });
        let kept = match tokio::time::timeout(REPORT_AFTER, &mut kept).await {
            Ok(kept) => kept,
            // Its turn may take minutes to come, and to end: until then, what holds already is reported.
            Err(_) => {
                self.so_far(pass);
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
                self.failed(pass, ControlName::Workloads, QuarantineReason::CaptureFailed, &error.into())
                    .await;
                return Ok(true);
            }
        }
        pass.in_place.captured = true;
        self.so_far(pass);
        let recorded = self.record(pass).await?;
        pass.capture = None;
        Ok(recorded)
    }

    /// Writes the status as far as it is known. If somebody wrote to the Quarantine since it was read, a claimant for instance,
    /// it is read afresh, and the answer is `false`.
    async fn record(&mut self, pass: &Pass) -> Result<bool, PassError> {
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
        // What this pass did answers to the spec that it read.
        now.metadata.generation = self.quarantine.metadata.generation;
        let status = status::after(&now, pass, &known, clock::now());
        self.quarantine = write(self.context, &now, status).await?;
        Ok(false)
    }
}
