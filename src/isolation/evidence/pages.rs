//! Long lists, page by page.

use kube::api::ListParams;

use crate::calls::{IoError, call};

/// Objects asked for at a time.
const PAGE: u32 = 500;

/// A whole list, page by page.
pub(super) async fn pages<T>(
    kind: &str,
    page: impl AsyncFn(ListParams) -> kube::Result<(Vec<T>, Option<String>)>,
) -> Result<Vec<T>, IoError> {
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let (values, next) = call(format!("list {kind}"), page(params.clone())).await?;
        all.extend(values);
        match next.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}
