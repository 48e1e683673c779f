//! `cargo xtask picture`: the terminal in the README, drawn from a real run of the program on the example.
//!
//! Start at [`SESSION`]: the lines that are typed. A shell runs each of them on a terminal of its own, in a copy of
//! `examples/shop`; a terminal emulator turns what was written, progress included, into cells, and those become an SVG.
//! Nothing in it is made up, and nothing of the machine that ran it is in it: a picture with a path of this machine is an
//! error. The ports of the example must be free.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anstyle::{AnsiColor, Color, Effects, RgbColor, Style};
use anstyle_svg::{Palette, Term};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::context::{Context, run as run_command};

/// What is typed: the shop starts, an update fails and goes back, and the reason is asked for.
const SESSION: [&str; 6] = [
    "cocktail up -d cocktail.toml",
    "sed -i s/http.server/http.sever/ cocktail.toml   # a mistake",
    "cocktail apply cocktail.toml --wait",
    "cocktail units",
    "cocktail why web | tail -8",
    "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8080/   # the old ones never left",
];

/// Pause after the first line: what containers use is read every ten seconds.
const UNTIL_READ: Duration = Duration::from_secs(11);

/// What is done afterwards, unseen.
const LAST: &str = "cocktail down";

/// Where the picture goes.
const FILE: &str = "docs/assets/terminal.svg";

/// The terminal's size. It has more rows than are ever written, so that nothing scrolls away.
const COLUMNS: NonZeroU16 = NonZeroU16::new(118).expect("not zero");
const ROWS: NonZeroU16 = NonZeroU16::new(200).expect("not zero");

/// Colours that can be read on the dark background; the picture brings it along, so that the page's does not matter.
const PALETTE: Palette = Palette([
    RgbColor(22, 27, 34),
    RgbColor(255, 123, 114),
    RgbColor(86, 211, 100),
    RgbColor(227, 179, 65),
    RgbColor(121, 192, 255),
    RgbColor(210, 168, 255),
    RgbColor(86, 212, 221),
    RgbColor(201, 209, 217),
    RgbColor(139, 148, 158),
    RgbColor(255, 161, 152),
    RgbColor(126, 231, 135),
    RgbColor(240, 198, 116),
    RgbColor(165, 214, 255),
    RgbColor(226, 197, 255),
    RgbColor(150, 233, 240),
    RgbColor(240, 246, 252),
]);

/// Builds the program, runs the session and writes the picture.
///
/// # Errors
/// When the program does not build, a line cannot be run, or something of this machine would be in the picture.
pub(crate) fn run(context: &Context) -> Result<()> {
    run_command(&mut context.cargo(&["build", "--locked", "--quiet", "--package", "cocktail-cli"]))?;
    let program = context.built("debug", "cocktail");
    let folder = tempfile::tempdir()?;
    let shop = folder.path().join("shop");
    copy(&context.root.join("examples/shop"), &shop)?;
    let bin = folder.path().join("bin");
    fs::create_dir(&bin)?;
    std::os::unix::fs::symlink(&program, bin.join("cocktail"))?;

    let mut screen = vt100::Parser::new(ROWS, COLUMNS, 0);
    let recorded = SESSION.iter().enumerate().try_for_each(|(number, line)| {
        if number == 1 {
            thread::sleep(UNTIL_READ);
        }
        let before = if number == 0 { "" } else { "\r\n" };
        let (prompt, typed) = (AnsiColor::BrightBlack.on_default(), AnsiColor::BrightWhite.on_default().bold());
        screen.process(format!("{before}{prompt}${prompt:#} {typed}{line}{typed:#}\r\n").as_bytes());
        on_terminal(&mut screen, &shop, &bin, line)
    });
    let mut unseen = vt100::Parser::new(ROWS, COLUMNS, 0);
    let ended = on_terminal(&mut unseen, &shop, &bin, LAST);
    recorded.and(ended)?;

    let text = styled(screen.screen());
    for of_this_machine in [folder.path(), &context.root, &context.target] {
        ensure!(!text.contains(&*of_this_machine.to_string_lossy()), "a path of this machine was printed:\n{text}");
    }
    let file = context.root.join(FILE);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&file, scalable(&Term::new().palette(PALETTE).render_svg(&text))?)?;
    Ok(())
}

/// Runs a line in the shop's folder on a terminal, and lets the screen show what it writes. How it ends is its business.
fn on_terminal(screen: &mut vt100::Parser, shop: &Path, bin: &Path, line: &str) -> Result<()> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ptsname(&ours, Vec::new())?;
    let theirs = File::options().read(true).write(true).open(theirs.to_str()?)?;
    tcsetwinsize(&ours, Winsize { ws_row: 40, ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 })?;

    let theirs = OwnedFd::from(theirs);
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(shop).env_clear();
    command.env("PATH", format!("{}:{path}", bin.display())).env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
    command.stdin(Stdio::from(theirs.try_clone()?)).stdout(theirs.try_clone()?).stderr(theirs);
    let mut child = command.spawn().with_context(|| format!("cannot run {line}"))?;
    // Its descriptors go with it: as long as one is open here, the terminal has no end.
    drop(command);

    let (mut ours, mut bytes) = (File::from(ours), [0; 4096]);
    loop {
        match ours.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => screen.process(&bytes[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal ends like this when the last one who had it open is gone.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
            Err(error) => return Err(error).with_context(|| format!("cannot read what {line} writes")),
        }
    }
    child.wait()?;
    Ok(())
}

/// What a screen shows as text with colours, without what moves a cursor.
fn styled(screen: &vt100::Screen) -> String {
    let (last, _) = screen.cursor_position();
    let rows = (0..last).map(|row| {
        let cells = (0..COLUMNS.get()).filter_map(|column| screen.cell(row, column));
        let cells: Vec<_> = cells.filter(|cell| !cell.is_wide_continuation()).collect();
        let blank = |cell: &&&vt100::Cell| !cell.has_contents() || cell.contents() == " ";
        let written = cells.len() - cells.iter().rev().take_while(blank).count();
        let runs = cells[..written].chunk_by(|one, next| style_of(one) == style_of(next));
        let runs = runs.map(|run| {
            let style = style_of(run[0]);
            let text: String = run.iter().map(|cell| if cell.has_contents() { cell.contents() } else { " " }).collect();
            format!("{style}{text}{style:#}")
        });
        runs.collect::<String>()
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn style_of(cell: &vt100::Cell) -> Style {
    let effects = [(cell.bold(), Effects::BOLD), (cell.dim(), Effects::DIMMED), (cell.underline(), Effects::UNDERLINE)];
    let effects = effects.into_iter().filter(|(is_on, _)| *is_on).fold(Effects::new(), |all, (_, one)| all | one);
    Style::new().fg_color(color_of(cell.fgcolor())).bg_color(color_of(cell.bgcolor())).effects(effects)
}

fn color_of(color: vt100::Color) -> Option<Color> {
    match color {
        vt100::Color::Default => None,
        vt100::Color::Idx(index) => {
            let color = anstyle::Ansi256Color(index);
            Some(color.into_ansi().map_or(Color::Ansi256(color), Color::Ansi))
        }
        vt100::Color::Rgb(red, green, blue) => Some(Color::Rgb(RgbColor(red, green, blue))),
    }
}

/// The picture with a view box, so that a narrow page shrinks it instead of cutting it off, and with a name for those who
/// do not see it.
fn scalable(svg: &str) -> Result<String> {
    let size = |name: &str| {
        let (_, rest) = svg.split_once(&format!("{name}=\""))?;
        rest.split_once("px\"").map(|(number, _)| number)
    };
    let (Some(width), Some(height)) = (size("width"), size("height")) else { bail!("the picture has no size") };
    let head = "<svg ";
    let rest = svg.strip_prefix(head).context("the picture does not begin as an SVG")?;
    let name = "cocktail in a terminal: an update that fails and goes back";
    Ok(format!("{head}viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\" {rest}"))
}

/// Copies what a checkout has; not what a run left in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() && entry.file_name() != ".cocktail" {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
