use super::*;
use crate::simulate::load;

/// The plan of the smallest example, compared: what is not granted, is granted by a wildcard, or unknown, by its verb.
fn compared(missing: &str, unknown: &str, wildcard: bool, late: bool) -> String {
    let text = include_str!("../../../examples/smallest.yaml");
    let access = Access::from_plan(&Plan::from_object(&load(text).unwrap()[0]));
    let answers = access.questions().into_iter().map(|question| {
        let answer = match &question {
            CheckQuestion::Account => Ok(true),
            CheckQuestion::May { right, .. } if right.verb == unknown => {
                Err("no answer within 15 s".to_owned())
            }
            CheckQuestion::May { right, .. } => Ok(right.verb != missing),
            CheckQuestion::Wildcard { .. } => Ok(wildcard),
        };
        (question, answer)
    });
    let found = access.compare(answers.collect(), late);
    anstream::adapter::strip_str(&report::text(&[found], late).unwrap()).to_string()
}

#[test]
fn missing_rights_are_reported_and_can_be_applied() {
    insta::assert_snapshot!("missing", compared("recover", "get", false, false));
    insta::assert_snapshot!("missing_late", compared("recover", "", false, true));
    insta::assert_snapshot!("missing_that_no_lead_grants", compared("impersonate", "", false, true));
    insta::assert_snapshot!("granted", compared("", "", false, false));
    insta::assert_snapshot!("wildcard", compared("", "", true, false));
}

#[test]
fn heading_says_when_to_apply_the_manifests() {
    let text = include_str!("../../../examples/smallest.yaml");
    let plans = [Access::from_plan(&Plan::from_object(&load(text).unwrap()[0]))];
    insta::assert_snapshot!("heading", report::heading(&plans, false, false));
    insta::assert_snapshot!("heading_late", report::heading(&plans, true, false));
}

/// The arguments, as they are typed.
#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[test]
fn authors_are_granted_the_use_of_the_account() {
    use clap::Parser;
    let parse = |arguments: &[&str]| {
        Line::try_parse_from(["access", "plan.yaml"].iter().chain(arguments)).map(|line| line.args)
    };
    let text = include_str!("../../../examples/smallest.yaml");
    let plans = [Access::from_plan(&Plan::from_object(&load(text).unwrap()[0]))];
    let args = parse(&[
        "--author",
        "system:serviceaccount:flux-system:kustomize-controller",
        "--author-group",
        "platform",
    ]);
    let args = args.unwrap();
    let all = printed(&args, &plans);
    let (own, authors) = all.split_at(access::manifests(&plans).len());
    assert_eq!(own, access::manifests(&plans));
    let heading = report::heading(&plans, false, args.has_authors());
    insta::assert_snapshot!("authors", heading + &access::yaml(authors).unwrap());
    for refused in ["--check", "--late"] {
        assert!(parse(&["--author", "x", refused]).is_err(), "{refused}");
    }
}
