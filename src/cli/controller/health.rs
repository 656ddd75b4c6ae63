//! Endpoints for the kubelet and Prometheus: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::controllers::metrics;
use crate::controllers::process::Process;

/// State behind the endpoints.
#[derive(Default)]
pub(super) struct Health {
    /// The lease was read: this process leads or stands by.
    pub(super) is_ready: Arc<AtomicBool>,
    pub(super) process: Process,
}

pub(super) async fn serve(listener: TcpListener, health: Arc<Health>) {
    if let Err(error) = axum::serve(listener, router(health)).await {
        tracing::error!(%error, "health endpoints failed");
    }
}

fn router(health: Arc<Health>) -> Router {
    let live = |State(health): State<Arc<Health>>| async move {
        let stuck = health.process.heartbeats.stuck();
        if stuck.is_empty() {
            return (StatusCode::OK, "ok\n".to_owned());
        }
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", stuck.join("\n")))
    };
    let ready = |State(health): State<Arc<Health>>| async move {
        if health.is_ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the lease has not been read yet; the log says why\n")
        }
    };
    let metrics = |State(health): State<Arc<Health>>| async move {
        let text = health.process.metrics.encode().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok::<_, StatusCode>(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
    };
    Router::new()
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get(health: &Arc<Health>, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(health.clone()).oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_stuck_loop_fails_liveness_and_an_unread_lease_readiness() {
        let health = Arc::new(Health::default());
        assert_eq!(get(&health, "/healthz").await, (200, "ok\n".to_owned()));
        let (code, body) = get(&health, "/readyz").await;
        assert_eq!((code, body.contains("lease has not been read")), (503, true), "{body}");
        health.is_ready.store(true, Ordering::Relaxed);
        assert_eq!(get(&health, "/readyz").await.0, 200);

        let _stuck = health.process.heartbeats.watch("plan controller", Duration::ZERO);
        let (mut code, mut body) = get(&health, "/healthz").await;
        // Until the clock has advanced by a tick.
        while code == 200 {
            (code, body) = get(&health, "/healthz").await;
        }
        assert_eq!((code, body.as_str()), (503, "plan controller: no sign of life for 0 s\n"));
        assert_eq!(get(&health, "/readyz").await.0, 200, "readiness is another matter");
        assert!(get(&health, "/metrics").await.1.contains("resurgam_leader 0"));
    }
}
