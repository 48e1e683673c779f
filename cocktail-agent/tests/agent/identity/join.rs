//! Secrets and tokens.

use cocktail_agent::identity::{Authority, JoinToken, Pin};
use cocktail_core::id::ServerId;

use super::{Manager, WEEK};

#[test]
fn a_secret_is_of_one_server_one_number_one_cluster_and_one_authority() {
    let manager = Manager::of("blue");
    let (web, authority) = (ServerId::new("web-1"), &manager.authority);
    let secret = authority.join_secret(&web, 1);
    assert_eq!(authority.join_secret(&web, 1).expose(), secret.expose(), "it is derived");
    assert!(authority.check_join(&web, 1, secret.expose()));
    assert_eq!(secret.expose().len(), 52);
    for (server, number) in [("web-2", 1), ("web-1", 2), ("web-", 1), ("web-1", 1 << 56), ("", 1)] {
        let server = ServerId::new(server);
        assert!(!authority.check_join(&server, number, secret.expose()), "{server} {number}");
        assert_ne!(authority.join_secret(&server, number).expose(), secret.expose());
    }
    assert!(!Manager::of("blue").authority.check_join(&web, 1, secret.expose()));
    let opened = Authority::open(manager.folder.path(), "blue", WEEK).unwrap();
    assert!(opened.check_join(&web, 1, secret.expose()), "it is the same after a restart");
}

#[test]
fn a_thousand_guesses_are_a_thousand_refusals() {
    let manager = Manager::of("blue");
    let web = ServerId::new("web-1");
    let secret = manager.authority.join_secret(&web, 1).expose().to_owned();
    let random = rustls::crypto::ring::default_provider().secure_random;
    for _ in 0..1_000 {
        let mut guess = [0; 32];
        random.fill(&mut guess).unwrap();
        assert!(!manager.authority.check_join(&web, 1, &data_encoding::BASE32_NOPAD.encode(&guess)));
    }
    let other_case = secret.to_ascii_lowercase();
    for guess in ["", "A", &secret[1..], &secret[..51], &format!("{secret}A"), &format!("{secret} "), &other_case] {
        assert!(!manager.authority.check_join(&web, 1, guess), "{guess:?}");
    }
}

#[test]
fn a_token_is_read_as_it_was_written_and_shows_no_secret() {
    let manager = Manager::of("blue");
    let token = manager.authority.token(&ServerId::new("web-1"), u64::MAX).unwrap();
    let text = token.to_string();
    let read: JoinToken = text.parse().unwrap();
    assert_eq!(read.to_string(), text);
    assert_eq!((read.pin, &read.cluster, &read.server), (token.pin, &token.cluster, &token.server));
    assert_eq!((read.number, read.secret().expose()), (u64::MAX, token.secret().expose()));
    assert!(text.contains(token.secret().expose()));
    let secret = manager.authority.join_secret(&ServerId::new("web-1"), u64::MAX);
    assert_eq!(token.secret().expose(), secret.expose());
    for shown in
        [format!("{token:?}"), format!("{token:#?}"), format!("{secret:?}"), format!("{:?}", manager.authority)]
    {
        assert!(!shown.contains(secret.expose()), "{shown}");
    }
    let shown = format!("{token:?}");
    assert!(shown.contains("web-1") && shown.contains("blue") && shown.contains(&token.pin.to_string()), "{shown}");
}

#[test]
fn what_is_nearly_a_token_is_none_and_is_not_repeated() {
    let text = Manager::of("blue").authority.token(&ServerId::new("web-1"), 7).unwrap().to_string();
    let parts: Vec<&str> = text.split('.').collect();
    let with = |at: usize, part: &str| {
        let mut parts = parts.clone();
        parts[at] = part;
        parts.join(".")
    };
    let (upper, secret) = (parts[1].to_ascii_uppercase(), parts[5].to_ascii_lowercase());
    let mut cases =
        vec![String::new(), format!(" {text}"), format!("{text}\n"), format!("{text}."), parts[..5].join(".")];
    cases.extend(
        [(0, "cocktail-join-2"), (1, &upper), (1, &parts[1][1..]), (2, ""), (2, "Blue"), (3, "a/b"), (3, "")]
            .map(|(at, part)| with(at, part)),
    );
    cases.extend(
        [(4, "07"), (4, "+7"), (4, "-7"), (4, "18446744073709551616"), (5, ""), (5, &secret), (5, &parts[5][..50])]
            .map(|(at, part)| with(at, part)),
    );
    for case in cases {
        let error = case.parse::<JoinToken>().unwrap_err();
        assert!(!error.to_string().contains(parts[5]), "{case:?}");
    }
}

#[test]
fn a_pin_is_read_as_it_was_written() {
    let pin = Manager::of("blue").authority.pin();
    let text = pin.to_string();
    assert!(text.starts_with("sha256-") && text.len() == 71, "{text}");
    assert_eq!(text.parse(), Ok(pin));
    for wrong in ["", "sha256-", &text[7..], &text[..70], &text.to_ascii_uppercase(), &format!("{text}0")] {
        assert!(wrong.parse::<Pin>().is_err(), "{wrong:?}");
    }
}
