CREATE TABLE responses (id INTEGER PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, response TEXT);
INSERT INTO responses VALUES (1, 'm', 'old prompt', NULL, 'old answer');
