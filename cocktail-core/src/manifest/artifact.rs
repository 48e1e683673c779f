//! Decodes `artifact`: where a server that is not this one gets the files of a Unit's command, and their hash.
//!
//! The place of the files is stored with the manifest and shown, so nothing that opens a door may stand in it. Messages
//! never repeat a URL that is refused: its password could be what is wrong with it.

use super::table::{Item, Table};
use crate::spec::{Artifact, ArtifactSource};

/// Longest URL.
const MAX_URL: usize = 2_048;

/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

const ARTIFACT: &str = "write artifact = { file = \"dist.tar.zst\", sha256 = \"…\" }, or url = \"https://…\"";
const HASH: &str = "sha256sum FILE prints it: 64 hexadecimal digits";
const URL: &str = "write url = \"https://example.com/dist.tar.zst\"";

/// Takes `artifact`.
pub(super) fn decode(item: Option<Item<'_>>) -> Option<Artifact> {
    let mut table = item?.table(ARTIFACT)?;
    let (file, url) = (table.take("file"), table.take("url"));
    let sha256 = table.require("sha256", HASH).and_then(|item| decode_hash(&item));
    let source = decode_source(&table, file, url);
    table.finish();
    Some(Artifact { source: source?, sha256: sha256? })
}

fn decode_source(table: &Table<'_>, file: Option<Item<'_>>, url: Option<Item<'_>>) -> Option<ArtifactSource> {
    let both = file.is_some() && url.is_some();
    let file = file.map(|item| item.path(ARTIFACT).map(ArtifactSource::File));
    let url = url.map(|item| decode_url(&item).map(ArtifactSource::Url));
    if both {
        table.problem("an artifact comes from a `file` or from a `url`", Some("keep one of them".to_owned()));
        return None;
    }
    let Some(source) = file.or(url) else {
        table.problem("an artifact needs a `file` or a `url`", Some(ARTIFACT.to_owned()));
        return None;
    };
    source
}

/// The hash in lower case, which is how it names a folder.
fn decode_hash(item: &Item<'_>) -> Option<String> {
    let text = item.text(HASH)?;
    if text.len() != DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        item.problem("is no SHA-256", Some(HASH.to_owned()));
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn decode_url(item: &Item<'_>) -> Option<String> {
    let text = item.filled_text(URL)?;
    if let Some((why, help)) = url_problem(text) {
        item.problem(why, Some(help.to_owned()));
        return None;
    }
    Some(text.to_owned())
}

/// Why no artifact can be fetched from there, and what to write instead.
fn url_problem(text: &str) -> Option<(String, &'static str)> {
    if text.len() > MAX_URL {
        return Some((format!("a URL has at most {MAX_URL} characters"), URL));
    }
    // Programs that read URLs drop line breaks and take a backslash for a slash: what they see would not be what was
    // looked at here.
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Some((
            "a URL has neither spaces nor backslashes, nor letters beyond ASCII".into(),
            "write %20 and the like",
        ));
    }
    let rest = text
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].into_iter().any(|known| scheme.eq_ignore_ascii_case(known)));
    let Some((_, rest)) = rest else {
        return Some(("a URL begins with http:// or https://".into(), URL));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let help = "leave out what stands before the @: the hash says whether the files are the right ones";
        return Some(("a URL with a user or a password would be stored, and shown".into(), help));
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Some(("the URL names no host".into(), URL));
    }
    None
}
