//! Archives that mean harm, or are none: each is refused with words that name the entry, and leaves nothing behind.

use std::time::{Duration, Instant};

use cocktail_agent::artifact::Limits;
use cocktail_core::error::ErrorKind;

use super::Scene;
use super::made::{Tar, gzip, of, zstd};

/// The archive is refused for what it is, in these words, and the disk is as before.
async fn refused(limits: &Limits, archive: Vec<u8>, words: &str) {
    let scene = Scene::with(limits.clone());
    let (artifact, source) = of(archive);
    let error = scene.artifacts.ready(&artifact, &source).await.expect_err(words);
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{}", error.chain());
    assert!(error.chain().contains(words), "`{}` does not say `{words}`", error.chain());
    scene.assert_only(&[]);
}

async fn all_refused(limits: &Limits, cases: Vec<(Tar, &str)>) {
    for (tar, words) in cases {
        let archive = tar.end();
        refused(limits, archive.clone(), words).await;
        refused(limits, zstd(&archive), words).await;
    }
}

#[tokio::test]
async fn paths_that_lead_outside_are_refused() {
    let t = Tar::new;
    all_refused(
        &Limits::default(),
        vec![
            (t().file("../evil", 0o644, b"x"), "`../evil` has `..` in its path"),
            (t().file("a/../../evil", 0o644, b"x"), "`a/../../evil` has `..`"),
            (t().folder("..", 0o777), "`..` has `..`"),
            (t().file("/tmp/evil", 0o644, b"x"), "`/tmp/evil` has an absolute path"),
            (t().pax_long("/tmp/evil", b"x"), "`/tmp/evil` has an absolute path"),
            (t().pax_long("../evil", b"x"), "`../evil` has `..`"),
            (t().gnu_long("../evil", b"x"), "`../evil` has `..`"),
            (t().pax_long("a\0b", b"x"), "`a\\0b` has a NUL"),
            (t().file("", 0o644, b"x"), "has no name"),
            (t().file("./", 0o644, b"x"), "is neither a file"),
            (t().file(".", 0o644, b"x"), "stands for the whole archive"),
            (t().link(".", "a"), "stands for the whole archive"),
            (t().pax_long("a/b/", b"x"), "is neither a file"),
            (t().pax_long(&format!("{}x", "a/".repeat(100)), b"x"), "lies too deep"),
            (t().pax_long(&"a".repeat(5_000), b"x"), "has a path that is too long"),
            (t().pax_long(&"a".repeat(300), b"x"), "has a name that is too long"),
        ],
    )
    .await;
}

#[tokio::test]
async fn links_that_lead_outside_are_refused() {
    let t = Tar::new;
    all_refused(
        &Limits::default(),
        vec![
            (t().link("a", "/etc/passwd"), "`a` is a link to an absolute path"),
            (t().link("a", ".."), "`a` is a link that leads outside"),
            (t().link("d/a", "../.."), "`d/a` is a link that leads outside"),
            (t().link("d/a", "./.././../x"), "`d/a` is a link that leads outside"),
            // `down` leads up, so what looks like a way inside is none.
            (
                t().folder("x/y", 0o755).link("x/y/down", "../..").link("out", "x/y/down/.."),
                "`out` is a link with `..`",
            ),
            (t().link("a", ""), "`a` is a link to nothing"),
            (t().pax("linkpath", &"x/".repeat(3_000)).link("a", "x"), "`a` is a link that is too long"),
            (t().pax("linkpath", "/etc").link("a", "x"), "`a` is a link to an absolute path"),
            (t().second_name("a", "/etc/passwd"), "`a` is a second name of something outside"),
            (t().second_name("a", "../shelf/.draft-0/archive"), "`a` is a second name of something outside"),
            (t().second_name("a", "b"), "`a` is a second name of something that is no file"),
            (t().second_name("a", "."), "`a` is a second name of something that is no file"),
            (t().folder("b", 0o755).second_name("a", "b"), "`a` is a second name of something that is no file"),
            (t().link("b", "c").second_name("a", "b"), "`a` is a second name of something that is no file"),
            (
                t().file("d/f", 0o644, b"").link("e", "d").second_name("a", "e/f"),
                "`a` is a second name of something that is no file",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn nothing_is_written_through_a_link_or_over_something() {
    let t = Tar::new;
    all_refused(
        &Limits::default(),
        vec![
            (t().folder("d", 0o755).link("l", "d").file("l/x", 0o644, b"x"), "`l/x` leads through something"),
            (t().folder("d", 0o755).link("l", "d").folder("l/x", 0o755), "`l/x` leads through something"),
            (t().folder("d", 0o755).link("l", "d").folder("l", 0o755), "`l` stands in the archive twice"),
            (t().folder("d", 0o755).link("d", "x"), "`d` stands in the archive twice"),
            (t().folder("d", 0o755).file("d", 0o644, b"x"), "`d` stands in the archive twice"),
            (t().link("l", "x").file("l", 0o644, b"x"), "`l` stands in the archive twice"),
            (t().file("f", 0o644, b"1").file("f", 0o644, b"2"), "`f` stands in the archive twice"),
            (t().file("f", 0o644, b"1").folder("f", 0o755), "`f` stands in the archive twice"),
            (t().file("f", 0o644, b"1").file("f/x", 0o644, b"2"), "`f/x` leads through something"),
            (t().file("f", 0o644, b"1").second_name("f", "f"), "`f` stands in the archive twice"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_file_folder_or_link_is_refused() {
    let t = Tar::new;
    all_refused(
        &Limits::default(),
        vec![
            (t().raw(b"a", b'3', b"", b""), "`a` is a device"),
            (t().raw(b"a", b'4', b"", b""), "`a` is a device"),
            (t().raw(b"a", b'6', b"", b""), "`a` is a device or a pipe"),
            (t().raw(b"a", b'V', b"", b""), "`a` is neither a file"),
            (t().raw(b"a\x1b[2Jb", b'Z', b"", b""), "`a\\u{1b}[2Jb` is neither a file"),
            (t().pax("GNU.sparse.major", "1").file("a", 0o644, b"0\n"), "`a` has holes in a form"),
            (t().claiming(b"a", b'2', b"b", b"", 2 << 20), "`a` has content, and is no file"),
        ],
    )
    .await;
}

#[tokio::test]
async fn more_than_the_limits_is_refused() {
    let limits = Limits { download: 10_000, unpacked: 2_000, file: 1_500, entries: 4, ..Limits::default() };
    let t = Tar::new;
    all_refused(
        &limits,
        vec![
            (t().file("big", 0o644, &[0; 1_501]), "`big` has 1501 bytes"),
            (t().file("a", 0o644, &[0; 1_001]).file("b", 0o644, &[0; 1_000]), "`b` makes it more than 2000 bytes"),
            (t().holes("holes", &[(1 << 40, b"x".to_vec())]), "`holes` has 1099511628288 bytes"),
            (t().link("a", "x").link("b", "x").link("c", "x").link("d", "x").link("e", "x"), "`e` is one too many"),
            (t().file("a/b/c/d/e", 0o644, b"x"), "`a/b/c/d/e` is one too many"),
        ],
    )
    .await;
    refused(&limits, vec![b'x'; 10_001], "larger than 10000 bytes").await;
}

#[tokio::test]
async fn what_is_no_archive_or_breaks_off_is_refused() {
    let limits = Limits::default();
    let tar = Tar::new().file("a", 0o644, &b"some text, and more of it. ".repeat(500)).end();
    let cases = [
        (b"\x7fELF\x02\x01".to_vec(), "is a program: put it into a tar archive"),
        (b"#!/bin/sh\nexec x\n".to_vec(), "is a script"),
        (b"PK\x03\x04...".to_vec(), "is a zip archive"),
        (b"\xfd7zXZ\0...".to_vec(), "is compressed by xz"),
        (b"hello".to_vec(), "is no tar archive"),
        (Vec::new(), "is no tar archive"),
        (gzip(b"hello"), "is no tar archive"),
        (zstd(&gzip(&tar)), "is no tar archive"),
        (vec![0; 10_240], "is no tar archive"),
        (Tar::new().comment("9 a=bcde\n").end().split_off(1_024), "is no tar archive"),
        (tar[..5_000].to_vec(), "is damaged or ends too early, after `a`"),
        (Tar::new().file("a", 0o644, b"").pax("path", "b").cut(), "is damaged or ends too early, after `a`"),
    ];
    for (archive, words) in cases {
        refused(&limits, archive, words).await;
    }
    for pack in [gzip, zstd] {
        let packed = pack(&tar);
        refused(&limits, packed[..packed.len() / 2].to_vec(), "is damaged or ends too early").await;
        let mut spoilt = packed.clone();
        let middle = packed.len() / 2;
        spoilt.truncate(middle);
        spoilt.extend(std::iter::repeat_n(0xff, packed.len() - middle));
        refused(&limits, spoilt, "is damaged or ends too early").await;
    }
    let mut checksum = tar;
    checksum[0] = b'b';
    refused(&limits, checksum, "is damaged or ends too early, at its beginning").await;
}

/// Ten gigabytes.
const BOMB: u64 = 10 << 30;

/// `head`, and then more zeros than the limits allow. It brings a tenth of what it claims: so much takes a megabyte.
fn gzip_bomb(head: &[u8]) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let zeros = gzip(&vec![0; PIECE]);
    [gzip(head), zeros.repeat(usize::try_from(BOMB).unwrap() / PIECE / 10)].concat()
}

/// The same for zstd, with all of it: 128 KiB of a byte take four bytes.
fn zstd_bomb(head: &[u8], fill: u8) -> Vec<u8> {
    const PIECE: u32 = 128 << 10;
    // No size is promised, and the window is 128 KiB.
    let mut bomb = [zstd(head).as_slice(), b"\x28\xb5\x2f\xfd\x00\x38"].concat();
    for _ in 0..BOMB / u64::from(PIECE) {
        bomb.extend_from_slice(&((PIECE << 3) | (1 << 1)).to_le_bytes()[..3]);
        bomb.push(fill);
    }
    bomb.extend_from_slice(&[1, 0, 0]);
    bomb
}

#[tokio::test]
async fn ten_gigabytes_from_a_few_bytes_are_refused_at_once() {
    let limits = Limits { unpacked: 64 << 20, file: 32 << 20, ..Limits::default() };
    let started = Instant::now();
    let claims = |kind: u8| Tar::new().claiming(b"zeros", kind, b"", b"", BOMB).cut();
    for kind in [b'0', b'7'] {
        refused(&limits, zstd_bomb(&claims(kind), 0), "`zeros` has 10737418240 bytes").await;
    }
    // What is kept in memory, or skipped, because it is no content.
    for kind in [b'L', b'K', b'x'] {
        refused(&limits, zstd_bomb(&claims(kind), b'a'), "what describes an entry is too long").await;
    }
    refused(&limits, gzip_bomb(&claims(b'0')), "`zeros` has 10737418240 bytes").await;
    refused(&limits, gzip_bomb(&claims(b'L')), "what describes an entry is too long").await;
    for kind in [b'g', b'1', b'5'] {
        let words = if kind == b'1' { "is a second name of" } else { "`zeros` has content, and is no file" };
        refused(&limits, zstd_bomb(&claims(kind), b'a'), words).await;
    }
    // Zeros beyond the end of the archive are not even read.
    let scene = Scene::with(limits.clone());
    let (artifact, source) = of(zstd_bomb(&Tar::new().file("a", 0o644, b"a").cut(), 0));
    scene.artifacts.ready(&artifact, &source).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[tokio::test]
async fn many_files_that_are_large_together_stop_at_the_limit() {
    let limits = Limits { unpacked: 2 << 20, file: 128 << 10, ..Limits::default() };
    let mut tar = Tar::new();
    for at in 0..40 {
        tar = tar.file(&format!("{at:04}"), 0o644, &[0; 128 << 10]);
    }
    let archive = tar.end();
    for packed in [gzip(&archive), zstd(&archive)] {
        refused(&limits, packed, "`0016` makes it more than 2097152 bytes in all").await;
    }
}
