//! The one provider of cryptography for TLS.

/// Sees to it that rustls has ring for a provider, in this process: `reqwest` brings none of its own here.
pub(crate) fn use_ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another caller installed a provider first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
