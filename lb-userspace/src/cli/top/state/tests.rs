use super::*;
use crate::cli::top::testing;

fn state() -> State {
    State::new(None, Pane::Drops, Duration::from_secs(1))
}

fn press(state: &mut State, keys: &[KeyCode]) -> Effect {
    let top = testing::top();
    let mut effect = Effect::None;
    for key in keys {
        effect = state.key(KeyEvent::from(*key), Some(&top));
    }
    effect
}

fn write(state: &mut State, text: &str) {
    let keys: Vec<_> = text.chars().map(KeyCode::Char).collect();
    press(state, &keys);
}

fn vips(state: &State) -> Vec<String> {
    let top = testing::top();
    state
        .vips(&top)
        .iter()
        .map(|vip| vip.name.clone())
        .collect()
}

#[test]
fn rows_are_sorted_by_what_a_key_says() {
    let mut state = state();
    for (key, order) in [
        ('p', ["web", "mail", "silent"]),
        ('n', ["mail", "silent", "web"]),
        // Nobody serves `silent`, and a backend of `web` has failed.
        ('h', ["silent", "web", "mail"]),
        ('u', ["web", "mail", "silent"]),
        ('r', ["mail", "silent", "web"]),
    ] {
        write(&mut state, &key.to_string());
        assert_eq!(vips(&state), order, "{key}");
    }
    write(&mut state, "rb");
    let top = testing::top();
    let mut backends = |key: &str| -> Vec<_> {
        write(&mut state, key);
        let backends = state.backends(&top.vips[0]);
        backends.iter().map(|one| one.id).collect()
    };
    assert_eq!(backends("p"), [2, 1, 4, 3]);
    assert_eq!(backends("n"), [1, 2, 3, 4]);
    assert_eq!(backends("h"), [3, 4, 1, 2]);
    // The first takes more than its slots, and so the second less.
    assert_eq!(backends("u")[..2], [2, 1]);
}

#[test]
fn a_filter_finds_names_addresses_and_backends() {
    let mut state = state();
    for (filter, found) in [
        ("MAI", &["mail"][..]),
        ("203.0.113", &["web", "silent"]),
        ("10.0.0.12", &["web"]),
        ("/udp", &["silent"]),
        ("no backend", &["silent"]),
        ("nothing", &[]),
    ] {
        write(&mut state, "/");
        write(&mut state, filter);
        assert_eq!(
            (vips(&state), state.mode),
            (found.iter().map(|&n| n.into()).collect(), Mode::Filter)
        );
        // Enter keeps it, Esc clears it.
        press(&mut state, &[KeyCode::Enter]);
        assert_eq!((state.filter(), state.mode), (filter, Mode::Browse));
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!(state.filter(), "");
    }
    write(&mut state, "/wex");
    press(&mut state, &[KeyCode::Backspace]);
    assert_eq!(state.filter(), "we");
    // Letters that are keys elsewhere are letters here.
    write(&mut state, "q");
    assert_eq!(state.filter(), "weq");
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!((state.filter(), state.mode), ("", Mode::Browse));
}

#[test]
fn enter_goes_into_the_chosen_vip_and_escape_back() {
    let mut state = state();
    press(&mut state, &[KeyCode::Down, KeyCode::Enter]);
    assert_eq!(state.vip.as_deref(), Some("mail"));
    // A filter in there is its own.
    write(&mut state, "/x");
    press(&mut state, &[KeyCode::Enter, KeyCode::Esc]);
    assert_eq!((state.vip.as_deref(), state.filter()), (Some("mail"), ""));
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!(state.vip, None);
    let top = testing::top();
    assert_eq!(state.chosen(Some(&top)), 1);
    press(&mut state, &[KeyCode::Esc]);
    assert_eq!(state.vip, None);
}

#[test]
fn the_chosen_row_stays_chosen_when_the_order_changes() {
    let mut state = state();
    let top = testing::top();
    press(&mut state, &[KeyCode::End]);
    assert_eq!(state.chosen(Some(&top)), 2);
    write(&mut state, "n");
    assert_eq!(vips(&state)[state.chosen(Some(&top))], "silent");
    press(
        &mut state,
        &[KeyCode::PageDown, KeyCode::Up, KeyCode::PageUp],
    );
    assert_eq!(state.chosen(Some(&top)), 0);
    // There is nothing to choose before the daemon has answered.
    assert_eq!(state.key(KeyCode::Down.into(), None), Effect::None);
    assert_eq!(state.key(KeyCode::Enter.into(), None), Effect::None);
    assert_eq!(state.vip, None);
}

#[test]
fn keys_quit_suspend_help_hold_and_pace() {
    let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
    let mut state = state();
    assert_eq!(press(&mut state, &[KeyCode::Char('q')]), Effect::Quit);
    for mode in [Mode::Browse, Mode::Filter, Mode::Help] {
        state.mode = mode;
        assert_eq!(state.key(control('c'), None), Effect::Quit);
        assert_eq!(state.key(control('z'), None), Effect::Suspend);
    }
    state.mode = Mode::Browse;
    write(&mut state, "?");
    assert_eq!(state.mode, Mode::Help);
    assert_eq!(press(&mut state, &[KeyCode::Char('q')]), Effect::None);
    assert_eq!(state.mode, Mode::Browse);
    write(&mut state, " s");
    assert_eq!((state.is_paused, state.pane), (true, Pane::Sources));
    write(&mut state, "sl");
    assert_eq!(state.pane, Pane::Limits);
    write(&mut state, "++");
    assert_eq!(state.interval, Duration::from_secs(3));
    write(&mut state, "---------");
    assert_eq!(state.interval, Duration::from_millis(200));
    state.interval = Duration::from_mins(5);
    write(&mut state, "+");
    assert_eq!(state.interval, Duration::from_mins(5));
    write(&mut state, "-");
    assert_eq!(state.interval, Duration::from_mins(1));
}
