//! What becomes of an operator's statements.

use super::*;

fn parsed(template: &str, dialect: &Dialect) -> Result<(String, String), String> {
    let statement = Statement::parse(template, HookPoint::MessagePublish, dialect)?;
    Ok((statement.text, statement.params.join(" ")))
}

#[test]
fn variables_become_markers_of_the_engine() {
    for (dialect, template, text, params) in [
        (
            Dialect::SQLITE,
            "insert into msg(msgid, topic) values(${msgid}, ${topic})",
            "insert into msg(msgid, topic) values(?, ?)",
            "msgid topic",
        ),
        (
            Dialect::PGSQL,
            "insert into m values(${topic}, '${clientid}', ${topic}::text)",
            "insert into m values($1, $2, $3::text)",
            "topic clientid topic",
        ),
        (Dialect::MYSQL, "call f(\"${topic}\");  ", "call f(?)  ", "topic"),
        (
            Dialect::MYSQL,
            r"select 'it\'s $${x}', ${qos}",
            r"select 'it\'s ${x}', ?",
            "qos",
        ),
        (Dialect::SQLITE, r"select '\', ${qos}", r"select '\', ?", "qos"),
        (
            Dialect::PGSQL,
            r"select E'\'', $tag$ ? $tag$, ${qos}",
            r"select E'\'', $tag$ ? $tag$, $1",
            "qos",
        ),
        (
            Dialect::PGSQL,
            "select a ? 'b' from t where q = ${qos}",
            "select a ? 'b' from t where q = $1",
            "qos",
        ),
        (
            Dialect::SQLITE,
            "select 'it''s', ${qos} -- why",
            "select 'it''s', ? -- why",
            "qos",
        ),
        (
            Dialect::CASSA,
            "delete from acked where topic = ${topic} // x",
            "delete from acked where topic = ? // x",
            "topic",
        ),
        (
            Dialect::PGSQL,
            "delete from t where a is distinct from ${topic} and b = trim(both from ${topic})",
            "delete from t where a is distinct from $1 and b = trim(both from $2)",
            "topic topic",
        ),
        (
            Dialect::SQLITE,
            "update t set n=n+1,t=${topic}",
            "update t set n=n+1,t=?",
            "topic",
        ),
        (
            Dialect::MYSQL,
            "insert into é values(${topic}) -- é",
            "insert into é values(?) -- é",
            "topic",
        ),
    ] {
        let expected = Ok((text.to_owned(), params.to_owned()));
        assert_eq!(parsed(template, &dialect), expected, "{template}");
    }
}

#[test]
fn what_cannot_be_bound_is_refused() {
    for (dialect, template, part) in [
        (
            Dialect::SQLITE,
            "select ${topik}",
            "there is no ${topik} at message.publish",
        ),
        (Dialect::SQLITE, "select ${peerhost}", "there is no ${peerhost}"),
        (Dialect::SQLITE, "select 'x ${topic}'", "inside a longer literal"),
        (Dialect::SQLITE, "select '${topic}${qos}'", "inside a longer literal"),
        (Dialect::PGSQL, "do $b$ ${topic} $b$", "inside a longer literal"),
        (Dialect::SQLITE, "select 1 -- ${topic}", "in a comment"),
        (Dialect::SQLITE, "select /* ${topic} */ 1", "in a comment"),
        (Dialect::MYSQL, "select 1 # ${topic}", "in a comment"),
        (Dialect::SQLITE, "delete from ${topic}", "where a name"),
        (Dialect::SQLITE, "delete from \"${topic}\"", "where a name"),
        (Dialect::SQLITE, "insert into t_${topic} values(1)", "where a name"),
        (Dialect::SQLITE, "select * from a.${topic}", "where a name"),
        (Dialect::SQLITE, "select `${topic}` from a", "where a name"),
        (Dialect::SQLITE, "select [${topic}] from a", "where a name"),
        (Dialect::SQLITE, "select ${topic}(1)", "where a name"),
        (Dialect::SQLITE, "select ${topic}${qos}", "where a name"),
        (Dialect::MYSQL, "select x'${topic}'", "where a name"),
        (Dialect::SQLITE, "select ?, ${qos}", "? is no value"),
        (Dialect::SQLITE, "select :a", ": is no value"),
        (Dialect::PGSQL, "select $1", "$ is no value"),
        (Dialect::SQLITE, "select '", "' is not closed"),
        (Dialect::SQLITE, "select /*", "/* is not closed"),
        (Dialect::SQLITE, "select ${topic", "`${` without"),
        (Dialect::SQLITE, "", "is empty"),
        (Dialect::SQLITE, " -- only a comment", "is empty"),
        (Dialect::SQLITE, "select 1; select 2", "more behind the `;`"),
        (Dialect::SQLITE, "select 1\0", "U+0000"),
        (Dialect::SQLITE, "commit", "COMMIT is refused"),
        (Dialect::SQLITE, "-- x\n Begin immediate", "BEGIN is refused"),
        (
            Dialect::SQLITE,
            "insert or rollback into t values(1)",
            "ROLLBACK is refused",
        ),
        (Dialect::MYSQL, "start transaction", "START is refused"),
    ] {
        let error = parsed(template, &dialect).expect_err(template);
        assert!(error.contains(part), "{template}: {error}");
    }
}

#[test]
fn sqlite_rules_leave_the_file_and_the_transactions_alone() {
    for word in [
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE a",
        "ATTACH 'x' AS y",
        "DETACH y",
        "PRAGMA a",
        "VACUUM",
    ] {
        let error = parsed(word, &Dialect::SQLITE).expect_err(word);
        assert!(error.contains("is refused"), "{word}: {error}");
        assert!(
            parsed(&format!("select '{}'", word.replace('\'', "")), &Dialect::SQLITE).is_ok(),
            "{word} in a literal"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic(text in "[$!-~é {}']{0,60}") {
        for dialect in [Dialect::SQLITE, Dialect::MYSQL, Dialect::PGSQL, Dialect::CASSA] {
            let _ = parsed(&text, &dialect);
        }
    }

    /// Whatever surrounds it, a text never gets more markers than parameters.
    #[test]
    fn markers_and_parameters_agree(before in "[a-z=,()' -]{0,20}", behind in "[a-z=,()' -]{0,20}") {
        if let Ok((text, params)) = parsed(&format!("{before}${{topic}}{behind}"), &Dialect::SQLITE) {
            proptest::prop_assert_eq!(text.matches('?').count(), params.split_whitespace().count());
        }
    }
}
