//! Encryption of logs, which may contain personal data, with age for the configured recipients.

use std::io::{self, Read, Write};
use std::str::FromStr;
use std::sync::Arc;

use age::stream::StreamWriter;
use age::{Decryptor, Encryptor};

/// An age recipient (`age1…`), the format of `--evidence-recipient`.
#[derive(Clone, Debug)]
pub struct Recipient(Arc<age::x25519::Recipient>);

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let recipient = text.parse().map_err(|why| format!("no age recipient (age1…): {why}"))?;
        Ok(Self(Arc::new(recipient)))
    }
}

/// A text being encrypted. Holds no more clear text than the last write.
pub(super) struct Encrypted(StreamWriter<Vec<u8>>);

impl Encrypted {
    /// Starts a text for these recipients.
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

    /// Ends the text. Without this call it cannot be decrypted.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

/// age identities (`AGE-SECRET-KEY-1…`) of a file as `age-keygen` writes it.
pub struct Identities(Vec<age::x25519::Identity>);

impl FromStr for Identities {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        // The line is a secret, so the error does not repeat it.
        let identities = said.map(|(index, line)| {
            line.parse()
                .map_err(|why| format!("line {}: no age identity (AGE-SECRET-KEY-1…): {why}", index + 1))
        });
        let identities: Vec<_> = identities.collect::<Result<_, _>>()?;
        if identities.is_empty() {
            Err("there is no age identity in it".to_owned())
        } else {
            Ok(Self(identities))
        }
    }
}

impl Identities {
    /// Returns a reader of the clear text.
    ///
    /// # Errors
    /// The text is not encrypted for any of these identities, or is corrupt. The reader may also fail.
    pub fn decrypt<R: Read>(&self, encrypted: R) -> io::Result<impl Read + use<R>> {
        let decryptor = Decryptor::new_buffered(io::BufReader::new(encrypted)).map_err(io::Error::other)?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        decryptor.decrypt(identities).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recipients_can_decrypt() {
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
    fn any_identity_of_a_file_decrypts() {
        use age::secrecy::ExposeSecret;
        let [one, other] = [age::x25519::Identity::generate(), age::x25519::Identity::generate()];
        let encrypted = age::encrypt(&other.to_public(), b"a log").unwrap();
        let file = |who: &[&age::x25519::Identity]| {
            let lines: Vec<String> =
                who.iter().map(|who| who.to_string().expose_secret().to_owned()).collect();
            format!("# created: today\n\n{}\n", lines.join("\n")).parse::<Identities>().unwrap()
        };
        let mut clear = String::new();
        file(&[&one, &other]).decrypt(encrypted.as_slice()).unwrap().read_to_string(&mut clear).unwrap();
        assert_eq!(clear, "a log");
        assert!(file(&[&one]).decrypt(encrypted.as_slice()).is_err());
        for text in ["", "# nobody", "AGE-SECRET-KEY-1XYZ"] {
            let Err(why) = text.parse::<Identities>() else { panic!("{text}") };
            assert!(why.contains("age identity") && !why.contains("1XYZ"), "{why}");
        }
    }

    #[test]
    fn invalid_recipient_is_refused_with_the_format() {
        for text in ["", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1XYZ", "age1qqqq"] {
            assert!(text.parse::<Recipient>().unwrap_err().contains("age1…"), "{text}");
        }
        assert!(Encrypted::to(&[]).is_err(), "for nobody is not encrypted at all");
    }
}
