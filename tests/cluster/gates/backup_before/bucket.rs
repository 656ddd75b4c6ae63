//! A stand-in for an S3 store that keeps versions, on loopback: the protocol and its signatures are those of `s3s`, the versions are a
//! list, and it answers HEAD alone. Its clock is the test's.

use std::pin::Pin;

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::dto::{ETag, HeadObjectInput, HeadObjectOutput, ObjectLockMode, Timestamp, TimestampFormat};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const BUCKET: &str = "council";

/// One version of an object. Of a key, the last one is current.
#[derive(Clone, Default)]
pub struct Version {
    pub key: &'static str,
    pub id: &'static str,
    /// As in RFC 3339.
    pub written: &'static str,
    pub size: i64,
    pub sha256: Option<&'static str>,
    pub retained_until: Option<&'static str>,
    pub in_parts: bool,
    pub is_deleted: bool,
}

/// The server. Dropped, it ends.
pub struct Server {
    pub url: String,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Serves these versions to who has access key `access` and secret key `secret`.
    pub async fn start(secret: &str, versions: Vec<Version>) -> Self {
        let mut service = S3ServiceBuilder::new(Versions(versions));
        service.set_auth(SimpleAuth::from_single("access", secret));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()).into_owned());
            }
        });
        Self { url, serving }
    }
}

struct Versions(Vec<Version>);

impl Versions {
    fn head(&self, asked: &HeadObjectInput) -> S3Result<S3Response<HeadObjectOutput>> {
        let of_key = self.0.iter().rev().filter(|version| asked.bucket == BUCKET && version.key == asked.key);
        let is_asked = |version: &&Version| asked.version_id.as_ref().is_none_or(|id| id == version.id);
        let found = of_key.clone().find(is_asked);
        let Some(found) = found.filter(|version| !version.is_deleted) else {
            let mut error = S3Error::new(S3ErrorCode::NoSuchKey);
            if found.is_some() {
                let marker = ("x-amz-delete-marker".parse().unwrap(), "true".parse().unwrap());
                error.set_headers([marker].into_iter().collect());
            }
            return Err(error);
        };
        let at = |text: &str| Timestamp::parse(TimestampFormat::DateTime, text).unwrap();
        let parts = if found.in_parts { "-3" } else { "" };
        let wants_digest = asked.checksum_mode.is_some();
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(found.size),
            e_tag: Some(ETag::Strong(format!("d41d8cd98f00b204e9800998ecf8427e{parts}"))),
            last_modified: Some(at(found.written)),
            version_id: Some(found.id.to_owned()),
            checksum_sha256: found.sha256.filter(|_| wants_digest).map(str::to_owned),
            object_lock_mode: found
                .retained_until
                .map(|_| ObjectLockMode::from_static(ObjectLockMode::COMPLIANCE)),
            object_lock_retain_until_date: found.retained_until.map(at),
            ..HeadObjectOutput::default()
        }))
    }
}

impl S3 for Versions {
    fn head_object<'server, 'answer>(
        &'server self,
        request: S3Request<HeadObjectInput>,
    ) -> Pin<Box<dyn Future<Output = S3Result<S3Response<HeadObjectOutput>>> + Send + 'answer>>
    where
        'server: 'answer,
        Self: 'answer,
    {
        Box::pin(std::future::ready(self.head(&request.input)))
    }
}
