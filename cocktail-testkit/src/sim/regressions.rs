//! Every run that ever failed, kept.
//!
//! A seed is the same run only as long as the world draws the same: each entry says what it showed, and where that was
//! a fault of the product a test of `cocktail-core` holds the situation itself.

use std::time::Duration;

use super::Options;

/// A run that failed once.
#[derive(Debug, Clone, Copy)]
pub struct Regression {
    /// The seed.
    pub seed: u64,
    /// How long things go wrong, in simulated seconds.
    pub faulty: u64,
    /// What it showed.
    pub showed: &'static str,
}

impl Regression {
    /// What it is run with.
    pub fn options(&self) -> Options {
        Options { faulty: Duration::from_secs(self.faulty), ..Options::default() }
    }
}

const LONG: u64 = 7_200;
const NO_ROOM: &str = "V1: at the limit of servers nothing had room for a rollout, which went back and paused; \
    the world's user resumes it and raises the limit";

const USED_AGAIN: &str = "E1: a server was about to be given back because it was empty, was used again, and nobody \
    looked at it";

/// All of them.
pub const REGRESSIONS: &[Regression] = &[
    Regression { seed: 9, faulty: 600, showed: NO_ROOM },
    Regression { seed: 102, faulty: LONG, showed: NO_ROOM },
    Regression {
        seed: 171,
        faulty: LONG,
        showed: "V1: servers took longer to boot than a rollout may take, which paused; the world's user resumes it",
    },
    Regression {
        seed: 214,
        faulty: LONG,
        showed: "I2: a server that came late was made again when its call was repeated; a token finds it now",
    },
    Regression {
        seed: 317,
        faulty: LONG,
        showed: "I4: an old Manager's call made several servers that nobody waits for, and the first count took the others \
            for awaited ones",
    },
    Regression { seed: 3, faulty: LONG, showed: USED_AGAIN },
    Regression { seed: 45, faulty: LONG, showed: USED_AGAIN },
    Regression { seed: 66, faulty: LONG, showed: "E1: an empty server that was to be emptied still took containers" },
    Regression {
        seed: 731,
        faulty: LONG,
        showed: "I6: a call was long on its way, and the time in which listings may leave a new server out counted from before \
            it was made",
    },
    Regression {
        seed: 1_979,
        faulty: LONG,
        showed: "I8: an old Manager's call arrived after the next one's was told no, and made a server; the check took it for one \
            that was refused though it was there",
    },
    Regression {
        seed: 2_023,
        faulty: LONG,
        showed: "I6: as before, and the server joined before its call was answered",
    },
    Regression {
        seed: 290,
        faulty: LONG,
        showed: "V1: a worker that was started while things went wrong ended seconds before the end; none does any more",
    },
    Regression {
        seed: 377,
        faulty: LONG,
        showed: "V1: a worker that was told something else twitched once more, long after the faults were over; none does",
    },
    Regression {
        seed: 313,
        faulty: LONG,
        showed: "I15: an assignment that arrived twice was taken up again after it had been unloaded; a worker remembers the \
            highest number",
    },
    Regression {
        seed: 360,
        faulty: LONG,
        showed: "E1: a worker that was being unloaded while its server was to be emptied waited there again, and nobody looked \
            at it",
    },
];
