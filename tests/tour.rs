//! `client tour`, the first command of README.md: each of its steps goes as it should.

use std::process::Command;

#[test]
fn every_step_of_the_tour_goes_as_it_should() {
    let tour = Command::new(env!("CARGO_BIN_EXE_client"))
        .arg("tour")
        .output()
        .expect("the client is there");
    let (said, errors) =
        (String::from_utf8_lossy(&tour.stdout), String::from_utf8_lossy(&tour.stderr));
    assert!(tour.status.success(), "{}:\n{said}{errors}", tour.status);
    assert!(!said.contains('✗'), "{said}");
    assert!(said.lines().filter(|line| line.contains('✓')).count() >= 12, "{said}");
}
