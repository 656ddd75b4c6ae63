//! Gate `http`: reads the status that an endpoint answers with.
//!
//! The URL comes from the plan's author, the connection is the operator's. So redirects are not followed, no proxy is used, and the
//! address is checked when connecting, so that a name cannot resolve differently the second time. The body is never read; no part of it
//! and no credentials appear in a message.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, Url, redirect, retry};
use resurgam_core::gates::addresses::refusal;
use resurgam_core::gates::http::{EndpointError, judge};

use super::{Answer, Context, Gate, Interest, Question};
use crate::access::Right;
use crate::api::GateReason;
use crate::api::gate::HttpSpec;

impl Gate for HttpSpec {
    fn interests(&self, _: &Question) -> Vec<Interest> {
        Vec::new()
    }

    fn rights(&self, _: &Question) -> Vec<Right> {
        // No request is sent to the API server.
        Vec::new()
    }

    fn subject(&self) -> String {
        // Host and port only: the rest may contain secrets.
        let url = Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(Url::host_str);
        match (host, url.as_ref().and_then(Url::port)) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => "the endpoint".to_owned(),
        }
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async { judge(self, context.asker.http.probe(&self.url).await) }.boxed()
    }
}

/// The client of `http` gates cannot be created, usually because the system trusts no certificate authority.
#[derive(Debug, thiserror::Error)]
#[error(
    "no client for https can be made: {0}. The administrator of the image or machine installs a bundle of certificate \
     authorities (/etc/ssl/certs/ca-certificates.crt, package ca-certificates), or sets SSL_CERT_FILE to one"
)]
pub struct AskerError(String);

impl AskerError {
    fn new(error: &reqwest::Error) -> Self {
        // The outer errors only refer to the inner one.
        let mut cause: &dyn Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let text = cause.to_string();
        Self(text.trim_start_matches("unexpected error: ").to_owned())
    }
}

fn builder() -> ClientBuilder {
    crate::tls::use_ring();
    Client::builder()
        .user_agent(concat!("resurgam/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        // Each request uses a new connection, so that its address is checked.
        .pool_max_idle_per_host(0)
}

/// Creates a client that connects to permitted addresses only, and to those within `allow`. A URL is checked before, by [`checked_url`].
pub(crate) fn checked_client(allow: &Arc<[IpNet]>) -> Result<Client, AskerError> {
    let client = builder().dns_resolver(CheckedResolver { allow: Arc::clone(allow) }).build();
    client.map_err(|error| AskerError::new(&error))
}

/// Creates a client for a host that the operator's configuration names, wherever that is.
pub(crate) fn unchecked_client() -> Result<Client, AskerError> {
    builder().build().map_err(|error| AskerError::new(&error))
}

/// Sends the requests of gates to endpoints outside the API server.
pub struct Prober {
    client: Client,
    allow: Arc<[IpNet]>,
}

impl Prober {
    /// Creates a prober that may also connect to addresses within `allow`.
    pub fn new(allow: Vec<IpNet>) -> Result<Self, AskerError> {
        let allow: Arc<[IpNet]> = allow.into();
        Ok(Self { client: checked_client(&allow)?, allow })
    }

    /// Returns the URL of a store if gates may request it.
    pub(super) fn checked(&self, url: &str) -> Result<Url, EndpointError> {
        checked_url(url, &self.allow)
    }

    /// Returns status and headers that a HEAD request is answered with. The caller checks the URL, and sets the deadline.
    pub(super) async fn head(
        &self,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<(u16, HeaderMap), EndpointError> {
        match self.client.head(url.clone()).headers(headers).send().await {
            Ok(response) => Ok((response.status().as_u16(), response.headers().clone())),
            Err(error) => Err(request_failure(url, &error.without_url())),
        }
    }

    /// Returns the endpoint's status. The caller sets the deadline.
    async fn probe(&self, url: &str) -> Result<u16, EndpointError> {
        let url = checked_url(url, &self.allow)?;
        match self.client.get(url.clone()).send().await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(request_failure(&url, &error.without_url())),
        }
    }
}

pub(super) fn endpoint_error(reason: GateReason, message: impl Into<String>) -> EndpointError {
    EndpointError { reason, message: message.into() }
}

/// Returns the URL if it may be requested. Host names are checked when resolved.
pub(crate) fn checked_url(url: &str, allow: &[IpNet]) -> Result<Url, EndpointError> {
    // The URL may contain credentials, so errors do not repeat it before that is excluded.
    let url = Url::parse(url).map_err(|error| {
        endpoint_error(GateReason::MalformedUrl, format!("the URL is malformed: {error}"))
    })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(endpoint_error(
            GateReason::CredentialsInUrl,
            "the URL holds credentials, which have no place in a plan",
        ));
    }
    if !["http", "https"].contains(&url.scheme()) {
        return Err(endpoint_error(
            GateReason::MalformedUrl,
            format!("{}: is neither http nor https", url.scheme()),
        ));
    }
    let host =
        url.host_str().ok_or_else(|| endpoint_error(GateReason::MalformedUrl, "the URL has no host"))?;
    // The parser has normalized all notations of an IPv4 address.
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
        && let Some(why) = refusal(address, allow)
    {
        return Err(endpoint_error(GateReason::AddressRefused, format!("{host} is {why}")));
    }
    Ok(url)
}

/// Returns why a request failed, without query and body, which may contain secrets.
pub(crate) fn request_failure(url: &Url, error: &reqwest::Error) -> EndpointError {
    let host = url.host_str().unwrap_or_default();
    let mut cause: &dyn Error = error;
    loop {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return endpoint_error(GateReason::AddressRefused, refused.to_string());
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    let reason = if error.is_timeout() {
        GateReason::TimedOut
    } else if error.is_connect() {
        GateReason::CannotConnect
    } else {
        GateReason::NoAnswer
    };
    endpoint_error(reason, format!("{host}: {cause}"))
}

/// Resolves names to permitted addresses only.
struct CheckedResolver {
    allow: Arc<[IpNet]>,
}

/// All addresses of a name are refused.
#[derive(Debug, thiserror::Error)]
#[error("{name} is {address}, {why}")]
struct Refused {
    name: String,
    address: IpAddr,
    why: &'static str,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.allow);
        Box::pin(async move {
            // Port 0 is replaced by the URL's port.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut refused = None;
            let mut good = Vec::new();
            for address in found {
                match refusal(address.ip(), &allow) {
                    Some(why) => {
                        refused =
                            Some(Refused { name: name.as_str().to_owned(), address: address.ip(), why });
                    }
                    None => good.push(address),
                }
            }
            match refused {
                Some(refused) if good.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests;
