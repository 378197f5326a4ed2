class DecisionLog:
    def __init__(self, store, run_id):
        pass

    def append(self, d):
        pass

    def flush(self):
        pass
