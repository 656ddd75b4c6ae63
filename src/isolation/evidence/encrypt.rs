//! Logs may hold what is personal: they are kept encrypted, for those alone who have an identity (age) that was named.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use age::Encryptor;
use age::stream::StreamWriter;

/// One who may read what is encrypted, as `--evidence-recipient` takes it: `age1…`.
#[derive(Clone, Debug)]
pub struct Recipient(Arc<age::x25519::Recipient>);

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let recipient = text.parse().map_err(|why| format!("no age recipient (age1…): {why}"))?;
        Ok(Self(Arc::new(recipient)))
    }
}

/// A text that is being encrypted. Never more of it is held in clear than was last written.
pub(super) struct Encrypted(StreamWriter<Vec<u8>>);

impl Encrypted {
    /// Begins a text for all of these.
    pub(super) fn to(recipients: &[Recipient]) -> io::Result<Self> {
        let recipients = recipients.iter().map(|recipient| {
            let recipient: &dyn age::Recipient = recipient.0.as_ref();
            recipient
        });
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        encryptor.wrap_output(Vec::new()).map(Self)
    }

    pub(super) fn write(&mut self, clear: &[u8]) -> io::Result<()> {
        self.0.write_all(clear)
    }

    /// Ends the text. Without this it does not decrypt.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipient_reads_what_was_encrypted_and_nobody_else_does() {
        let identities = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
        let recipients: Vec<Recipient> =
            identities.iter().map(|who| who.to_public().to_string().parse().unwrap()).collect();
        let mut text = Encrypted::to(&recipients).unwrap();
        text.write(b"Mrs Miggins, 3 Mitre Square").unwrap();
        let text = text.finish().unwrap();
        assert!(!text.windows(7).any(|part| part == b"Miggins"));
        for who in &identities {
            assert_eq!(age::decrypt(who, &text).unwrap(), b"Mrs Miggins, 3 Mitre Square");
        }
        age::decrypt(&age::x25519::Identity::generate(), &text).unwrap_err();
    }

    #[test]
    fn what_is_no_recipient_is_refused_with_what_is_wanted() {
        for text in ["", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1XYZ", "age1qqqq"] {
            assert!(text.parse::<Recipient>().unwrap_err().contains("age1…"), "{text}");
        }
        assert!(Encrypted::to(&[]).is_err(), "for nobody is not encrypted at all");
    }
}
