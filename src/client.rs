//! The operator's client. Reads without an answer are retried, so that one lost answer does not fail a whole pass. Writes are not: the
//! caller has to check first whether they took effect. Every request is counted.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tower::retry::{Policy, Retry};

use crate::leader::Leadership;

/// Retries of a read.
const AGAIN: u32 = 2;
/// First pause before a retry; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(50);

/// Creates a client that retries reads. The client of kube retries when the API server is overloaded (429, 503, 504); this one also
/// retries server errors and broken connections.
///
/// # Errors
/// No client can be created from the configuration.
pub fn with_read_retries(config: Config) -> kube::Result<Client> {
    build(config, None)
}

/// As [`with_read_retries`], but sends only reads while this process is not the leader.
///
/// # Errors
/// No client can be created from the configuration.
pub fn while_leading(config: Config, leadership: Leadership) -> kube::Result<Client> {
    build(config, Some(leadership))
}

fn build(config: Config, leadership: Option<Leadership>) -> kube::Result<Client> {
    let client = Client::try_from(config)?;
    let (namespace, until) = (client.default_namespace().to_owned(), *client.valid_until());
    let send = move |request: Request<Body>| {
        let (client, leadership) = (client.clone(), leadership.clone());
        async move {
            let is_write = request.method() != Method::GET;
            if is_write && leadership.is_some_and(|leadership| !leadership.is_held()) {
                return Err(kube::Error::Service("nothing is written: this process does not lead".into()));
            }
            counted(&client, request).await
        }
    };
    let service = Retry::new(Reads::default(), tower::service_fn(send));
    Ok(ClientBuilder::new(service, namespace).with_valid_until(until).build())
}

/// Requests of all clients of this process, since each impersonated account has its own client.
pub(crate) static REQUESTS: LazyLock<Requests> = LazyLock::new(|| Requests {
    count: Family::default(),
    durations: Family::new_with_constructor(|| Histogram::new([0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0])),
});

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Metrics of requests to the API server.
pub(crate) struct Requests {
    pub(crate) count: Family<Labels<2>, Counter>,
    pub(crate) durations: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

/// Sends a request and counts it by its outcome. Retries of kube's client count as one request.
async fn counted(client: &Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    let verb = ("verb", verb(&request));
    let began = Instant::now();
    let result = client.send(request).await;
    let code = match &result {
        Ok(response) => match response.status().as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        },
        Err(_) => "none",
    };
    REQUESTS.count.get_or_create(&[verb, ("code", code)]).inc();
    // For a watch, the time until it starts.
    REQUESTS.durations.get_or_create(&[verb]).observe(began.elapsed().as_secs_f64());
    result
}

fn verb(request: &Request<Body>) -> &'static str {
    match *request.method() {
        Method::GET if is_watch(request) => "WATCH",
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn is_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|q| q.split('&').any(|p| p.starts_with("watch=")))
}

/// Number of retries of one request.
#[derive(Clone, Debug, Default)]
struct Reads {
    asked: u32,
}

impl<B, E> Policy<Request<Body>, Response<B>, E> for Reads {
    type Future = tokio::time::Sleep;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<B>, E>) -> Option<Self::Future> {
        let failed = match result {
            Ok(response) => {
                [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::BAD_GATEWAY].contains(&response.status())
            }
            Err(_) => true,
        };
        if !failed || self.asked == AGAIN {
            return None;
        }
        let pause = PAUSE * 2_u32.pow(self.asked);
        self.asked += 1;
        Some(tokio::time::sleep(pause))
    }

    /// Returns `None` for requests that are not retried: writes, and watches, which restart on their own.
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        if request.method() != Method::GET || is_watch(request) {
            return None;
        }
        let mut again = Request::new(request.body().try_clone()?);
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        *again.headers_mut() = request.headers().clone();
        *again.extensions_mut() = request.extensions().clone();
        Some(again)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::response::IntoResponse;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use kube::api::{DeleteParams, Patch, PatchParams, WatchParams};
    use serde_json::json;

    use super::*;

    /// A server that answers with these, one after another, and what it was asked.
    async fn server(answers: Vec<StatusCode>) -> (Client, Arc<Mutex<Vec<String>>>) {
        type Shared = (Arc<Mutex<Vec<String>>>, Arc<Mutex<std::vec::IntoIter<StatusCode>>>);
        async fn answer(
            State((asked, answers)): State<Shared>,
            request: axum::extract::Request,
        ) -> impl IntoResponse {
            asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let code = answers.lock().unwrap().next().unwrap_or(StatusCode::OK);
            (code, json!({"metadata": {"name": "a"}}).to_string())
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let shared: Shared = (asked.clone(), Arc::new(Mutex::new(answers.into_iter())));
        let app = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        (with_read_retries(Config::new(url)).unwrap(), asked)
    }

    const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

    #[tokio::test]
    async fn a_read_that_fails_is_asked_again_twice() {
        let (client, asked) = server(vec![FAILED, StatusCode::BAD_GATEWAY]).await;
        Api::<Namespace>::all(client).get("a").await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 3);

        let (client, asked) = server(vec![FAILED; 4]).await;
        Api::<Namespace>::all(client).get("a").await.unwrap_err();
        assert_eq!(*asked.lock().unwrap(), vec!["GET /api/v1/namespaces/a"; 3]);
    }

    #[tokio::test]
    async fn refusals_and_missing_objects_are_not_retried() {
        for code in [StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED] {
            let (client, asked) = server(vec![code; 4]).await;
            Api::<Namespace>::all(client).get("a").await.unwrap_err();
            assert_eq!(asked.lock().unwrap().len(), 1, "{code}");
        }
    }

    #[tokio::test]
    async fn neither_a_write_nor_a_watch_is_asked_again() {
        let (client, asked) = server(vec![FAILED; 4]).await;
        let namespaces = Api::<Namespace>::all(client);
        let patch = Patch::Merge(json!({}));
        namespaces.patch("a", &PatchParams::default(), &patch).await.unwrap_err();
        namespaces.delete("a", &DeleteParams::default()).await.unwrap_err();
        assert!(namespaces.watch(&WatchParams::default(), "0").await.is_err());
        assert_eq!(asked.lock().unwrap().len(), 3, "{asked:?}");
    }
}
