//! Gate `approval`: nothing is gathered. Decisions are objects that the operator watches, and the engine counts them.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Answer, Context, Gate, Interest, Question};
use crate::access::Right;
use crate::api::GateReason;
use crate::api::gate::ApprovalSpec;

impl Gate for ApprovalSpec {
    fn interests(&self, _: &Question) -> Vec<Interest> {
        Vec::new()
    }

    fn rights(&self, _: &Question) -> Vec<Right> {
        Vec::new()
    }

    fn ask<'a>(&'a self, _: Context<'a>) -> BoxFuture<'a, Answer> {
        let why = "only the operator counts Decisions";
        std::future::ready(Answer::unknown(GateReason::AwaitsApproval, why)).boxed()
    }
}
