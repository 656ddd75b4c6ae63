//! References to images, as specs name them and as runtimes report them.

/// Registry of a name without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Maximum length of a name without its tag, as registries have it.
const NAME_LIMIT: usize = 255;
/// Maximum length of a tag.
const TAG_LIMIT: usize = 128;

/// Returns whether the text is `sha256:` and 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex)
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the digest that pins an image: `repository[:tag]@sha256:…`. `None`: it is named by tag only, which may change its meaning.
#[must_use]
pub fn pinned(image: &str) -> Option<&str> {
    let (repository, digest) = image.rsplit_once('@')?;
    (!repository.is_empty() && is_digest(digest)).then_some(digest)
}

/// Returns the digest in an image ID of the runtime: `repository@sha256:…`, `sha256:…` or the bare digits of an image's configuration,
/// with or without `docker-pullable://`.
#[must_use]
pub fn running(image_id: &str) -> Option<String> {
    let id = image_id.split_once("://").map_or(image_id, |(_, id)| id);
    if is_hex(id) {
        return Some(format!("sha256:{id}"));
    }
    let digest = id.rsplit_once('@').map_or(id, |(_, digest)| digest);
    is_digest(digest).then(|| digest.to_owned())
}

/// Returns the full name `registry/repository:tag` of an image that is named by tag, as container runtimes complete it: without a
/// registry it is of docker.io, there without a folder in `library`, and without a tag `latest`. `None`: it has a digest, or is malformed.
#[must_use]
pub fn tagged(image: &str) -> Option<String> {
    let is_registry =
        |part: &str| part.contains(['.', ':']) || part == "localhost" || part.contains(char::is_uppercase);
    let (registry, rest) = match image.split_once('/') {
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, image),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let (repository, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
    let folder = if registry == DEFAULT_REGISTRY && !repository.contains('/') { "library/" } else { "" };
    let name = format!("{registry}/{folder}{repository}");
    let valid = is_host(registry)
        && repository.split('/').all(is_component)
        && is_tag(tag)
        && name.len() <= NAME_LIMIT
        // What looks like an image ID is no name.
        && !is_hex(image);
    valid.then(|| format!("{name}:{tag}"))
}

/// Returns whether a name without a digest has a tag.
pub(super) fn has_tag(image: &str) -> bool {
    image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

fn is_host(host: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(is_part)
}

fn is_component(component: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    bytes.iter().all(|&byte| is_letter(byte) || b"._-".contains(&byte))
        && bytes.first().is_some_and(|&byte| is_letter(byte))
        && bytes.last().is_some_and(|&byte| is_letter(byte))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    tag.len() <= TAG_LIMIT
        && bytes.first().is_some_and(|&byte| is_word(byte))
        && bytes.iter().all(|&byte| is_word(byte) || b".-".contains(&byte))
}
