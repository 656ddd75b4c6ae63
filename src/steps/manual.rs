//! Step `manual`: people act outside the cluster. The engine asks them and counts their approvals, so that nothing is started here.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{ManualSpec, Step, StepClients, StepContext, StepError};
use crate::access::Right;
use crate::engine::StepProgress;
use crate::gates::Interest;

impl Step for ManualSpec {
    fn rights(&self, _: &StepContext) -> Vec<Right> {
        Vec::new()
    }

    fn interests(&self, _: &StepContext) -> Vec<Interest> {
        Vec::new()
    }

    fn start<'a>(
        &'a self,
        _: &'a StepClients,
        _: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        std::future::ready(Ok(StepProgress::Running("people are asked".to_owned()))).boxed()
    }

    fn observe<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        self.start(clients, context)
    }
}
