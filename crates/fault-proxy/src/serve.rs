//! Accepts connections and forwards requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kube::client::Body as Upstream;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::choice::{Choices, Schedule};
use crate::fault::Fault;
use crate::halt::{Halt, Turn};
use crate::request::RequestInfo;
use crate::shaper::{Out, Shaper};

/// Body of an answer. An error in it breaks the connection.
type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer, or an error that breaks the connection.
type Answer = Result<Response<Body>, io::Error>;

/// State that all connections share.
pub(crate) struct Shared {
    upstream: kube::Client,
    /// User agent of the requests, for the audit log.
    agent: HeaderValue,
    choices: Mutex<Choices>,
    counts: Mutex<BTreeMap<Fault, u64>>,
    token_ran_out: AtomicBool,
    pub(crate) halt: Halt,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts connections while it is polled. Dropping it breaks them.
pub(crate) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else { continue };
        let shared = shared.clone();
        let life = shared.halt.life();
        connections.spawn(async move {
            let serve = hyper::service::service_fn(|request| shared.clone().answer(life, request));
            // The client notices a broken connection itself.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), serve)
                .await;
        });
    }
}

impl Shared {
    pub(crate) fn new(upstream: kube::Client, agent: HeaderValue, schedule: Schedule) -> Self {
        Self {
            upstream,
            agent,
            choices: Mutex::new(Choices::new(schedule)),
            counts: Mutex::default(),
            token_ran_out: AtomicBool::new(false),
            halt: Halt::new(),
        }
    }

    pub(crate) fn follow(&self, schedule: Schedule) {
        *lock(&self.choices) = Choices::new(schedule);
    }

    pub(crate) fn refuse_tokens(&self, on: bool) {
        self.token_ran_out.store(on, Ordering::SeqCst);
    }

    pub(crate) fn counts(&self) -> BTreeMap<Fault, u64> {
        lock(&self.counts).clone()
    }

    pub(crate) fn count(&self, fault: Fault) {
        *lock(&self.counts).entry(fault).or_default() += 1;
    }

    async fn passable(&self, life: u64) -> io::Result<()> {
        if self.halt.passable(life).await { Ok(()) } else { Err(broken("the client is taken for dead")) }
    }

    async fn answer(self: Arc<Self>, life: u64, request: Request<Incoming>) -> Answer {
        let asked = RequestInfo::of(request.method(), request.uri());
        self.passable(life).await?;
        if self.token_ran_out.load(Ordering::SeqCst) {
            self.count(Fault::Unauthorized);
            return refusal(Fault::Unauthorized);
        }
        let chosen = lock(&self.choices).request(&asked);
        let fault = chosen.map(|(fault, _)| fault);
        fault.inspect(|fault| self.count(*fault));
        match chosen {
            Some((Fault::Refused, _)) => return Err(broken("refused")),
            Some((Fault::Slow, by)) => tokio::time::sleep(by).await,
            Some((Fault::LateAnswer | Fault::LostAnswer | Fault::CutShort, _)) | None => {}
            Some((fault, _)) => return refusal(fault),
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let turn = if asked.has_effect() { self.halt.turn(asked.reports()) } else { Turn::Pass };
        if turn == Turn::Never {
            return std::future::pending().await;
        }
        // A started request is completed even if nobody waits for the answer: only the answer is lost.
        let (shared, request) = (self.clone(), Request::from_parts(parts, body));
        let handed_on = tokio::spawn(async move {
            let response = shared.clone().hand_on(asked.clone(), request).await;
            if turn == Turn::Last {
                shared.halt.rest();
            }
            (asked, response)
        });
        let (asked, response) = handed_on.await.map_err(io::Error::other)?;
        if turn == Turn::Last {
            return std::future::pending().await;
        }
        self.passable(life).await?;
        let response = response?;
        match fault {
            Some(Fault::LostAnswer) => Err(broken("the answer is lost")),
            Some(fault @ Fault::LateAnswer) => refusal(fault),
            Some(Fault::CutShort) => cut_short(response).await,
            _ if asked.watch && response.status().is_success() => Ok(self.watched(asked, life, response)),
            _ => Ok(response.map(boxed)),
        }
    }

    /// Forwards a request and returns its complete answer, or that of a watch once it has started.
    async fn hand_on(
        self: Arc<Self>,
        asked: RequestInfo,
        request: Request<Bytes>,
    ) -> io::Result<Response<Upstream>> {
        let (mut parts, body) = request.into_parts();
        for hop in [HOST, CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(hop);
        }
        parts.headers.insert(USER_AGENT, self.agent.clone());
        let request = Request::from_parts(parts, Upstream::from(body.to_vec()));
        let response = self.upstream.send(request).await.map_err(io::Error::other)?;
        let (mut parts, body) = response.into_parts();
        for hop in [CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(hop);
        }
        if asked.watch && parts.status.is_success() {
            return Ok(Response::from_parts(parts, body));
        }
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(parts, Upstream::from(body.to_vec())))
    }

    /// Returns the events of a watch with their faults.
    fn watched(
        self: Arc<Self>,
        asked: RequestInfo,
        life: u64,
        response: Response<Upstream>,
    ) -> Response<Body> {
        let lag = lock(&self.choices).watch(&asked);
        if lag.is_some() {
            self.count(Fault::WatchLags);
        }
        let (parts, upstream) = response.into_parts();
        let shaper = Shaper::new(lag.unwrap_or_default());
        let watch =
            Watched { shared: self, asked, life, upstream, shaper, began: Instant::now(), over: false };
        let events = stream::unfold(watch, async |mut watch| {
            let next = watch.next().await?;
            watch.over = next.is_err();
            Some((next.map(Frame::data), watch))
        });
        Response::from_parts(parts, StreamBody::new(events).boxed_unsync())
    }
}

/// A forwarded watch.
struct Watched {
    shared: Arc<Shared>,
    asked: RequestInfo,
    life: u64,
    upstream: Upstream,
    shaper: Shaper,
    began: Instant,
    over: bool,
}

impl Watched {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.over {
            return None;
        }
        loop {
            if let Err(error) = self.shared.passable(self.life).await {
                return Some(Err(error));
            }
            match self.shaper.hand_on(self.began.elapsed()) {
                Some(Out::Line(line)) => return Some(Ok(line)),
                Some(Out::End) => return None,
                Some(Out::Break) => return Some(Err(broken("the watch broke"))),
                None => {}
            }
            let due = self.shaper.due().map_or(FAR, |due| due.saturating_sub(self.began.elapsed()));
            tokio::select! {
                frame = self.upstream.frame() => self.take(frame),
                () = tokio::time::sleep(due) => {}
            }
        }
    }

    fn take<E>(&mut self, frame: Option<Result<Frame<Bytes>, E>>) {
        let now = self.began.elapsed();
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return self.shaper.end(now, true),
            None => return self.shaper.end(now, false),
        };
        let Some(bytes) = frame.data_ref() else { return };
        let (shared, asked) = (&self.shared, &self.asked);
        let struck = self.shaper.take(now, bytes, |of| lock(&shared.choices).event(asked, of));
        struck.into_iter().for_each(|fault| shared.count(fault));
    }
}

/// Longer than any watch.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, why)
}

fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(io::Error::other).boxed_unsync()
}

/// Returns an error answer as the API server would send it.
fn refusal(fault: Fault) -> Answer {
    let Some((code, reason, message)) = fault.answer() else { return Err(broken("no answer")) };
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    let mut response = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    if code == StatusCode::TOO_MANY_REQUESTS {
        response = response.header(RETRY_AFTER, "1");
    }
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never: Infallible| match never {});
    response.body(body.boxed_unsync()).map_err(io::Error::other)
}

/// Returns half an answer with the length of the whole.
async fn cut_short(response: Response<Upstream>) -> Answer {
    let (mut parts, body) = response.into_parts();
    let whole = body.collect().await.map_err(io::Error::other)?.to_bytes();
    parts.headers.insert(CONTENT_LENGTH, whole.len().into());
    let half = whole.slice(..whole.len() / 2);
    let frames = stream::iter([Ok(Frame::data(half)), Err(broken("cut short"))]);
    Ok(Response::from_parts(parts, StreamBody::new(frames.fuse()).boxed_unsync()))
}
