//! Reads long lists page by page.

use std::time::Duration;

use kube::api::ListParams;

use crate::calls::{IoError, call};

/// Page size.
const PAGE: u32 = 500;
/// Minimum page size if larger pages fail.
const SMALLEST: u32 = 4;
/// Attempts to read a page after transient errors. A capture takes some sixty lists and is repeated as a whole if one fails; if one
/// answer in twenty is lost, it would hardly ever succeed otherwise.
const TRIES: u32 = 4;
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns a whole list.
pub(super) async fn pages<T, F>(kind: &str, page: impl Fn(ListParams) -> F) -> Result<Vec<T>, IoError>
where
    // Not `AsyncFn`: the compiler could not prove the caller's future `Send`.
    F: Future<Output = kube::Result<(Vec<T>, Option<String>)>>,
{
    let mut limit = PAGE;
    let mut params = ListParams::default().limit(limit);
    let mut all = Vec::new();
    let mut tries = 0;
    loop {
        tries += 1;
        let (values, next) = match call(format!("list {kind}"), page(params.clone())).await {
            Ok(page) => page,
            // After a timeout, only a smaller page is worth another attempt.
            Err(error @ IoError::Api { .. }) if error.is_transient() && tries < TRIES => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            // Each object may be as large as a tenant can make it, so a smaller page may succeed.
            Err(error) if error.is_transient() && limit > SMALLEST => {
                limit = (limit / 5).max(SMALLEST);
                params.limit = Some(limit);
                tries = TRIES - 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        tries = 0;
        all.extend(values);
        match next.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kube::core::Status;

    use super::*;

    /// Two pages; each answer is the next of `answers`: 0, or the code it is refused with. Returns the codes that are left, too.
    async fn read(answers: &[u16]) -> (Option<Vec<u32>>, usize) {
        let left = Mutex::new(answers.iter().copied());
        let page = |params: ListParams| {
            std::future::ready(match left.lock().unwrap().next().unwrap_or_default() {
                0 if params.continue_token.is_some() => Ok((vec![2], None)),
                0 => Ok((vec![1], Some("more".to_owned()))),
                code => Err(kube::Error::Api(Box::new(Status { code, ..Status::default() }))),
            })
        };
        let all = pages("things", page).await.ok();
        (all, left.into_inner().unwrap().count())
    }

    #[tokio::test]
    async fn page_is_retried_after_transient_errors_only() {
        let whole = Some(vec![1, 2]);
        for (answers, found, left) in [
            (&[0, 0][..], whole.clone(), 0),
            (&[500, 503, 0, 500, 500, 500, 0], whole, 0),
            (&[0, 500, 500, 500, 500, 0], Some(vec![1, 2]), 0),
            (&[0, 500, 500, 500, 500, 500, 500, 500, 0], None, 1),
            (&[403, 0, 0], None, 2),
        ] {
            assert_eq!(read(answers).await, (found, left), "{answers:?}");
        }
    }
}
